//! Every check that `docs/conformance.md` names exists.

use std::fs;
use std::path::Path;

#[test]
fn every_check_named_in_the_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/conformance.md")).expect("docs/conformance.md is there");
    let mut named = 0;
    let mut missing = Vec::new();
    // Every second piece of text cut at back quotes stands between two of them.
    for line in table.lines().filter(|line| line.starts_with('|')) {
        for (file, check) in line.split('`').skip(1).step_by(2).filter_map(|text| text.split_once(": ")) {
            let source = with_headers(&root.join("ctests"), &format!("{file}.c"));
            let (family, name) = (check.ends_with('*'), check.trim_end_matches('*').trim_end_matches('_'));
            let mut words = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            if !words.any(|word| word == name || (family && word.starts_with(name))) {
                missing.push(format!("{file}: {check}"));
            }
            named += 1;
        }
    }
    assert!(named > 100, "only {named} checks are named: is the table's form another now?");
    assert!(missing.is_empty(), "named but not there:\n{}", missing.join("\n"));
}

/// The text of a file and of those it includes from beside it.
fn with_headers(dir: &Path, name: &str) -> String {
    let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
    let included = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    let headers: String = included.map(|header| with_headers(dir, header)).collect();
    text + &headers
}
