use super::super::devices::{Access, DeviceKind, DeviceRule, rules, v1_writes};
use super::super::plan::Options;
use super::bpf::{allowed, samples};
use crate::error::{At, Findings};

fn rule(text: &str) -> DeviceRule {
    let words: Vec<&str> = text.split([' ', ':']).collect();
    let number = |text: &str| (text != "*").then(|| text.parse().expect("number"));
    let access = |letter: char| match letter {
        'm' => Access::MKNOD.0,
        'r' => Access::READ.0,
        _ => Access::WRITE.0,
    };
    DeviceRule {
        allow: words[0] == "+",
        kind: match words[1] {
            "a" => DeviceKind::All,
            "b" => DeviceKind::Block,
            _ => DeviceKind::Char,
        },
        major: number(words[2]),
        minor: number(words[3]),
        access: Access(words[4].chars().map(access).fold(0, |all, one| all | one)),
    }
}

pub(super) fn list(texts: &[&str]) -> Vec<DeviceRule> {
    texts.iter().map(|text| rule(text)).collect()
}

/// The value lists of the v1 files, or `None` where v1 cannot express the rules.
fn v1(texts: &[&str]) -> Option<Vec<String>> {
    let rules: Vec<_> = list(texts).into_iter().map(|rule| (rule, At::of("/x"))).collect();
    let writes = v1_writes(&rules).ok()?;
    Some(writes.iter().map(|write| format!("{} {}", &write.file[8..], write.value)).collect())
}

#[test]
fn v1_gets_a_default_and_exceptions() {
    let deny = "- a *:* rwm";
    assert_eq!(v1(&[deny]), Some(vec!["deny a".into()]));
    assert_eq!(v1(&[deny, "+ a *:* rwm"]), Some(vec!["allow a".into()]));
    assert_eq!(
        v1(&[deny, "+ a *:* rwm", "- b 8:0 w", "- b 8:0 r"]),
        Some(vec!["allow a".into(), "deny b 8:0 rw".into()])
    );
    assert_eq!(
        v1(&[deny, "+ c 1:3 rwm", "- c 1:3 w"]),
        Some(vec!["deny a".into(), "allow c 1:3 rm".into()])
    );
    assert_eq!(v1(&[deny, "+ c 1:3 rwm", "- c 1:* rwm"]), Some(vec!["deny a".into()]));
    assert_eq!(
        v1(&[deny, "+ a *:* m"]),
        Some(vec!["deny a".into(), "allow b *:* m".into(), "allow c *:* m".into()])
    );
    assert_eq!(
        v1(&[deny, "+ a 189:* rw"]),
        Some(vec!["deny a".into(), "allow b 189:* rw".into(), "allow c 189:* rw".into()])
    );
    // As many bits as the config gives: OCI's validation suite reads devices.list.
    assert_eq!(
        v1(&[deny, "+ b 8:20 rw", "+ b *:* m", "+ c 5:1 m", "+ c 5:* rw"]),
        Some(
            ["deny a", "allow b 8:20 rw", "allow b *:* m", "allow c 5:1 m", "allow c 5:* rw"]
                .map(String::from)
                .to_vec()
        )
    );
    // The kernel would silently keep c 1:3 allowed.
    assert_eq!(v1(&[deny, "+ c 1:* rwm", "- c 1:3 w"]), None);
    assert_eq!(
        v1(&[deny, "+ c *:* m", "- c 1:3 w"]),
        Some(vec!["deny a".into(), "allow c *:* m".into()])
    );
}

/// What the kernel (security/device_cgroup.c) makes of the files.
fn kernel_v1(values: &[String], kind: u32, major: u32, minor: u32, access: u8) -> bool {
    let default = values[0] == "allow a";
    let mut partial = false;
    for value in &values[1..] {
        let one = rule(&value.replacen("allow", "+", 1).replacen("deny", "-", 1));
        let number = |rule: Option<u32>, own: u32| rule.is_none_or(|rule| rule == own);
        if (one.kind == DeviceKind::Block) != (kind == 1) {
            continue;
        }
        if !number(one.major, major) || !number(one.minor, minor) {
            continue;
        }
        if default {
            partial |= one.access.0 & access != 0;
        } else if access & !one.access.0 == 0 {
            return true;
        }
    }
    default && !partial
}

#[test]
fn v1_means_the_same_as_the_ordered_list() {
    let lists: [&[&str]; 9] = [
        &["- a *:* rwm", "+ b 8:20 r", "+ b *:* wm", "+ b 8:20 m"],
        &["- a *:* rwm", "+ c 1:* rm", "+ c 1:3 m", "+ c 1:3 w", "- c 1:* m"],
        &["- a *:* rwm", "+ c 1:3 rwm", "+ c 136:* rwm", "+ c *:* m", "+ b *:* m"],
        &["- a *:* rwm", "+ c 1:* r", "+ c 1:3 w"],
        &["- a *:* rwm", "+ c 1:3 w", "+ c 1:* r"],
        &["- a *:* rwm", "+ a *:* rw", "- b *:* rwm", "+ b 8:0 r"],
        &["- a *:* rwm", "+ a *:* rwm", "- c 1:* w", "- c 1:3 r", "+ c 1:* r"],
        &["- a *:* rwm", "+ c 1:3 rw", "- c *:* w", "+ c 1:8 w"],
        &["+ a *:* rwm", "- a *:* rwm", "+ a *:* m"],
    ];
    for texts in lists {
        let values = v1(texts).expect("expressible");
        for (kind, major, minor) in samples() {
            // What the kernel asks for: mknod alone, or how a file is opened.
            for access in [1, 2, 4, 6] {
                assert_eq!(
                    kernel_v1(&values, kind, major, minor, access),
                    allowed(&list(texts), kind, major, minor, access),
                    "{texts:?} {values:?}: {kind} {major}:{minor} {access}"
                );
            }
        }
    }
}

#[test]
fn defaults_come_last_and_mknod_can_be_left_out() {
    let mut findings = Findings::default();
    let all = rules(&[], &Options::default(), &mut findings);
    assert_eq!(all[0].0.to_string(), "deny a *:* rwm");
    assert_eq!(all.last().map(|(rule, _)| rule.to_string()), Some("allow b *:* m".into()));
    let options = Options { no_mknod: true, ..Options::default() };
    let fewer = rules(&[], &options, &mut findings);
    assert_eq!(fewer.last().map(|(rule, _)| rule.to_string()), Some("allow c 136:* rwm".into()));
    assert_eq!(all.len(), fewer.len() + 2);
}

/// What systemd's own filter makes of a unit's list: one entry has to have the whole access.
fn systemd_allows(rules: &[DeviceRule], (kind, major, minor): (u32, u32, u32), access: u8) -> bool {
    let (all, entries) = super::super::devices::allowed(rules);
    all || entries.iter().any(|entry| {
        (entry.kind == if kind == 1 { DeviceKind::Block } else { DeviceKind::Char })
            && entry.major.is_none_or(|number| number == major)
            && entry.minor.is_none_or(|number| number == minor)
            && access & !entry.access.0 == 0
    })
}

/// Both filters count, so systemd's must let through whatever the rules do; and it is not wider than
/// what systemd cannot express.
#[test]
fn systemd_filter_lets_through_all_that_the_rules_allow() {
    let deny = "- a *:* rwm";
    let lists: [&[&str]; 12] = [
        &[deny],
        &[deny, "+ a *:* rwm"],
        &[deny, "+ a *:* rwm", "- c 1:3 rwm"],
        &[deny, "+ a *:* rwm", deny, "+ c 1:3 r"],
        &[deny, "+ c 1:3 r", "+ c 1:3 w"],
        &[deny, "+ c 1:* r", "+ c 1:3 w"],
        &[deny, "+ c 1:3 w", "+ c 1:* r", "+ c *:* m"],
        &[deny, "+ c *:3 r", "+ c 1:* w"],
        &[deny, "+ c *:3 rw", "- c *:5 r", "+ a *:* m"],
        &[deny, "+ c 1:* rwm", "- c 1:3 w"],
        &[deny, "+ b 8:* rw", "- b 8:0 rw", "+ b 8:1 m"],
        &[deny, "+ c 136:* rwm", "- c *:* w", "+ c 5:2 rw"],
    ];
    for texts in lists {
        let rules = list(texts);
        for sample in samples() {
            for access in [1u8, 2, 4, 6] {
                let (kind, major, minor) = sample;
                let ours = allowed(&rules, kind, major, minor, access);
                let theirs = systemd_allows(&rules, sample, access);
                assert!(theirs || !ours, "{texts:?}: {sample:?} {access}");
            }
        }
    }
    assert!(!systemd_allows(&list(&[deny, "+ c 1:3 rw"]), (2, 1, 5), 2));
    assert!(!systemd_allows(&list(&[deny, "+ c 1:3 r"]), (2, 1, 3), 4));
    assert!(!systemd_allows(&list(&[deny, "+ c 1:3 rwm"]), (1, 1, 3), 2));
    assert!(!systemd_allows(&list(&[deny, "+ a *:* rwm", deny]), (2, 1, 3), 2));
}
