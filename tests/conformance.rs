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
            let source = fs::read_to_string(root.join(format!("ctests/{file}.c"))).unwrap_or_default();
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
