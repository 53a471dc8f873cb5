//! No configuration makes the planner panic: the recorded ones of engines, changed at random. A document
//! that does is made smaller until nothing can be left out of it. `hack/fuzz` does the same for longer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

use super::host;
use crate::bundle;

#[allow(unreachable_pub, missing_docs, clippy::pedantic)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

/// Changed documents for each recorded one.
const ROUNDS: u64 = 30;

fn recorded() -> Vec<Value> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures");
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let texts =
        files.filter_map(|one| std::fs::read_to_string(one.path().join("config.json")).ok());
    texts.filter_map(|text| serde_json::from_str(&text).ok()).collect()
}

fn panics(document: &Value) -> bool {
    let text = document.to_string();
    catch_unwind(AssertUnwindSafe(|| host::plan(text.as_bytes()))).is_err()
}

/// Leaves members and items out while it still panics.
fn smallest(mut document: Value) -> Value {
    loop {
        let smaller = parts(&document).into_iter().find_map(|pointer| {
            let mut less = document.clone();
            let (parent, name) = pointer.rsplit_once('/')?;
            match less.pointer_mut(parent)? {
                Value::Array(items) => drop(items.remove(name.parse().ok()?)),
                Value::Object(members) => {
                    drop(members.remove(&name.replace("~1", "/").replace("~0", "~")));
                }
                _ => return None,
            }
            panics(&less).then_some(less)
        });
        match smaller {
            Some(less) => document = less,
            None => return document,
        }
    }
}

/// The pointer of every member and item.
fn parts(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![(String::new(), document)];
    while let Some((at, value)) = todo.pop() {
        match value {
            Value::Array(items) => {
                todo.extend(items.iter().enumerate().map(|(i, item)| (format!("{at}/{i}"), item)));
            }
            Value::Object(members) => todo.extend(members.iter().map(|(name, member)| {
                (format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), member)
            })),
            _ => {}
        }
        found.extend((!at.is_empty()).then_some(at));
    }
    found
}

#[test]
fn no_configuration_makes_the_planner_panic() {
    let documents = recorded();
    assert!(documents.len() > 40, "{}", documents.len());
    let mut accepted = 0;
    for (number, document) in documents.iter().enumerate() {
        for round in 0..ROUNDS {
            let mut random = mutate::Random::new(number as u64 * 1000 + round);
            let mut changed = document.clone();
            for _ in 0..=random.below(6) {
                mutate::change(&mut changed, &mut random);
            }
            assert!(!panics(&changed), "{:#}", smallest(changed));
            accepted += usize::from(bundle::config(changed.to_string().as_bytes()).is_ok());
        }
    }
    // Most must get past the parser, or little would be proven.
    let all = documents.len() * usize::try_from(ROUNDS).unwrap_or(0);
    assert!(accepted * 3 > all, "{accepted} of {all}");
}

#[test]
fn a_failing_document_is_made_small() {
    let document = serde_json::json!({"a": [1, {"b~/c": 2}]});
    assert_eq!(parts(&document).len(), 4);
    assert_eq!(smallest(document.clone()), document, "it does not panic, so nothing is left out");
}
