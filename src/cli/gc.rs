//! `gc`

use clap::ArgMatches;

use super::{Globals, args, print};
use crate::error::{Code, Error};
use crate::gc;

/// `onggi gc`
pub fn gc(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let report = gc::collect(&globals.root, !args::is_on(matches, "dry-run"))?;
    print(&report.lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    globals.log.warn(report.warnings);
    if report.failures.is_empty() {
        return Ok(0);
    }
    let texts: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    Err(Error::text(Code::E_DELETE, texts.join("; ")).into())
}
