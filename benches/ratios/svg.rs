//! Curves as a drawing: small multiples with a logarithmic axis across and a linear one,
//! from nought, up.

use std::fmt::Write;

/// One side's points: what it grew to, and the cost, ns.
pub(crate) struct Curve {
    name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Curve {
    pub(crate) fn new(name: &str) -> Curve {
        Curve { name: name.to_owned(), points: Vec::new() }
    }
}

/// One drawing of the grid.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
    pub(crate) curves: Vec<Curve>,
}

const COLUMNS: usize = 3;
/// A panel with its labels.
const CELL: (f64, f64) = (320.0, 250.0);
/// The room of its curves, and where in the panel that begins.
const PLOT: (f64, f64) = (240.0, 150.0);
const INSET: (f64, f64) = (62.0, 40.0);
/// The legend's line.
const TOP: f64 = 44.0;

/// Colour and dashes of the curves, in the order of the sides.
const LOOKS: [(&str, &str); 3] = [("#6b7280", "5 3"), ("#1d4ed8", "none"), ("#c2410c", "2 2")];

/// All panels as one file.
pub(crate) fn draw(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (CELL.0 * COLUMNS as f64, TOP + CELL.1 * rows as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#111827\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    legend(&mut out, panels);
    for (i, panel) in panels.iter().enumerate() {
        let (column, row) = ((i % COLUMNS) as f64, (i / COLUMNS) as f64);
        let (x, y) = (column * CELL.0 + INSET.0, TOP + row * CELL.1 + INSET.1);
        put(&mut out, format_args!("<g transform=\"translate({x} {y})\">"));
        panel.draw(&mut out);
        put(&mut out, format_args!("</g>"));
    }
    out + "</svg>\n"
}

fn put(out: &mut String, line: std::fmt::Arguments) {
    // A String takes whatever it is given.
    let _ = writeln!(out, "{line}");
}

fn legend(out: &mut String, panels: &[Panel]) {
    let mut x = INSET.0;
    put(out, format_args!("<text x=\"{x}\" y=\"27\" font-weight=\"bold\">CPU time of one operation, ns</text>"));
    x += 210.0;
    for (curve, (colour, dashes)) in panels.first().map_or(&[][..], |panel| &panel.curves).iter().zip(LOOKS) {
        let end = x + 28.0;
        put(
            out,
            format_args!(
                "<path d=\"M{x} 23H{end}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>"
            ),
        );
        put(out, format_args!("<text x=\"{}\" y=\"27\">{}</text>", end + 6.0, curve.name));
        x = end + 60.0;
    }
}

/// The next of 1, 2, 5, 10, 20 … that makes at most five steps of `most`.
fn step(most: f64) -> f64 {
    let decade = 10f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|x| x * decade).into_iter().find(|step| step * 5.0 >= most).unwrap_or(most)
}

/// 19000 as 19k.
fn short(x: f64) -> String {
    if x >= 1000.0 { format!("{}k", x / 1000.0) } else { format!("{x}") }
}

impl Panel {
    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.curves.iter().flat_map(|curve| &curve.points)
    }

    fn draw(&self, out: &mut String) {
        let (width, height) = PLOT;
        let most = self.points().map(|p| p.1).fold(1.0, f64::max);
        let step = step(most);
        let top = (most / step).ceil() * step;
        let (first, last) = self.points().fold((f64::MAX, 1.0f64), |(a, b), p| (a.min(p.0), b.max(p.0)));
        let decades = (last / first).log10().max(0.1);
        let across = |x: f64| (x / first).log10() / decades * width;
        let up = |y: f64| height - y / top * height;
        put(out, format_args!("<text y=\"-16\" font-size=\"12\" font-weight=\"bold\">{}</text>", self.title));
        put(out, format_args!("<text x=\"-7\" y=\"-16\" text-anchor=\"end\" fill=\"#6b7280\">ns</text>"));
        for y in (0..).map(|i| f64::from(i) * step).take_while(|y| *y <= top) {
            let at = up(y);
            put(out, format_args!("<path d=\"M0 {at:.1}H{width}\" stroke=\"#e5e7eb\"/>"));
            put(out, format_args!("<text x=\"-7\" y=\"{:.1}\" text-anchor=\"end\">{y}</text>", at + 4.0));
        }
        put(out, format_args!("<path d=\"M0 {height}H{width}\" stroke=\"#374151\"/>"));
        let mut xs: Vec<_> = self.curves.first().map_or(Vec::new(), |curve| curve.points.iter().map(|p| p.0).collect());
        xs.dedup();
        let mut free = f64::MIN;
        for x in xs {
            let at = across(x);
            put(out, format_args!("<path d=\"M{at:.1} {height}v4\" stroke=\"#374151\"/>"));
            // A label that would run into the last one is left out.
            if at >= free {
                put(
                    out,
                    format_args!(
                        "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                        height + 17.0,
                        short(x)
                    ),
                );
                free = at + 24.0;
            }
        }
        put(
            out,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                width / 2.0,
                height + 36.0,
                self.across
            ),
        );
        for (curve, (colour, dashes)) in self.curves.iter().zip(LOOKS) {
            let line: Vec<_> = curve.points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), up(*y))).collect();
            put(
                out,
                format_args!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
                    line.join(" ")
                ),
            );
            for (x, y) in &curve.points {
                put(
                    out,
                    format_args!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", across(*x), up(*y)),
                );
            }
        }
    }
}
