//! conformance/contract.toml: every row of what engines rely on has a test with its number in its name, or
//! says why it has none. (`conformance/run-contract` prints the rows with their tests and results.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::conformance::{is_a_test, tables, tests_of};
use crate::support::host;

/// The tests of integration/ by the row numbers in their names; a name may have several.
fn tests_by_row() -> BTreeMap<u64, BTreeSet<String>> {
    let mut found: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(host::sources().join("integration")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        for test in tests_of(&path) {
            for word in test.split('_') {
                let Some(Ok(row)) = word.strip_prefix("row").map(str::parse) else { break };
                let file = path.file_stem().unwrap().to_string_lossy();
                found.entry(row).or_default().insert(format!("{file}::{test}"));
            }
        }
    }
    found
}

/// There is such a script, and `make test-engines` runs it.
fn runs_engine(name: &str) -> bool {
    let dir = host::sources().join("conformance/engines");
    let all = fs::read_to_string(dir.join("run")).unwrap();
    let mut words = all.split([' ', '(', ')', ':', '\n', '\t']);
    dir.join(name).exists() && words.any(|word| word == name)
}

#[test]
fn every_row_of_the_contract_has_a_test_or_a_reason() {
    let tests = tests_by_row();
    let mut rows = BTreeSet::new();
    for table in tables("contract.toml") {
        let row = table["row"].as_u64().unwrap();
        assert!(rows.insert(row) && table["what"].is_string(), "{table:?}");
        let reason = table.get("todo").and_then(Value::as_str);
        let named = table.get("test").and_then(Value::as_array).into_iter().flatten();
        let named: Vec<_> = named.map(|test| test.as_str().unwrap()).collect();
        assert!(named.iter().all(|test| is_a_test(test)), "row {row}: no such test in {named:?}");
        // By their names run-contract finds them.
        let numbered = format!("::row{row}_");
        assert!(named.iter().all(|test| test.contains(&numbered)), "row {row}: {named:?}");
        let engines = table.get("engines").and_then(Value::as_array).into_iter().flatten();
        let engines: Vec<_> = engines.map(|engine| engine.as_str().unwrap()).collect();
        assert!(engines.iter().all(|engine| runs_engine(engine)), "row {row}: {engines:?}");
        match tests.get(&row) {
            Some(tests) => assert!(reason.is_none(), "row {row} has tests: {tests:?}"),
            None => assert!(
                reason.is_some() == (named.is_empty() && engines.is_empty()),
                "row {row} has neither test nor reason: {table:?}"
            ),
        }
    }
    assert_eq!(rows, (1..=100).collect());
    let unknown: Vec<_> = tests.keys().filter(|row| !rows.contains(row)).collect();
    assert!(unknown.is_empty(), "tests of rows that are not there: {unknown:?}");
}
