//! `policy check|test|explain|schema`: the mesh file, without a server where files are given.

mod explain;

use std::path::PathBuf;

use anyhow::Result;
use policy::{Indistinct, Likeness, Mesh};
use serde_json::json;

use crate::args::{MeshFiles, Policy, PolicyCheck};
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::{green, red};
use crate::sources;

/// Runs one of them.
pub(crate) async fn run(command: Policy, context: &Context) -> Result<Exit> {
    match command {
        Policy::Check(args) => check(&args, context),
        Policy::Test(args) => test(&args, context),
        Policy::Explain(args) => explain::run(args, context).await,
        Policy::Schema => {
            context
                .screen
                .line(serde_json::to_string_pretty(&policy::json_schema())?)?;
            Ok(Exit::Fine)
        }
    }
}

fn check(args: &PolicyCheck, context: &Context) -> Result<Exit> {
    let mesh = read(&args.mesh.files, context)?;
    let screen = &context.screen;
    let (bots, rules) = (mesh.bots().len(), mesh.rule_ids().len());
    let warnings = mesh.warnings();
    let alike = args.host.as_ref().map(|host| mesh.indistinct(host, uid_of));
    if screen.is_table() {
        screen.line(format!(
            "{} {}: {bots} bots, {rules} rules, {} warnings",
            green("ok"),
            mesh.trust_domain(),
            warnings.len()
        ))?;
        for pair in alike.iter().flatten() {
            screen.line(told(pair))?;
        }
    } else {
        screen.document(&json!({
            "trust_domain": mesh.trust_domain(), "bots": bots, "rules": rules, "warnings": warnings, "indistinct": alike,
        }))?;
    }
    Ok(if alike.is_none_or(|pairs| pairs.is_empty()) {
        Exit::Fine
    } else {
        Exit::Findings
    })
}

/// Asks this machine for the number of a user.
fn uid_of(user: &str) -> Option<u32> {
    let found = nix::unistd::User::from_name(user).ok().flatten();
    found.map(|user| user.uid.as_raw())
}

fn told(pair: &Indistinct) -> String {
    let Indistinct { one, other, likeness } = pair;
    match likeness {
        Likeness::SameProcess => format!(
            "{} one process would be {one} and {other}, and is refused",
            red("alike")
        ),
        Likeness::Shared => format!(
            "{} {one} and {other} share a user or a unit, so their processes can become each other",
            red("close")
        ),
    }
}

fn test(args: &MeshFiles, context: &Context) -> Result<Exit> {
    let report = read(&args.files, context)?.run_tests(context.clock.now());
    let screen = &context.screen;
    if screen.is_table() {
        if report.failed() > 0 {
            screen.warn(report.render(screen.color()));
        }
        let verdict = if report.failed() == 0 {
            green("ok")
        } else {
            red("failed")
        };
        screen.line(format!(
            "{verdict} {} calls: {} passed, {} failed",
            report.total(),
            report.passed(),
            report.failed()
        ))?;
    } else {
        screen.document(&json!({
            "passed": report.passed(), "failed": report.failed(), "outcomes": report.outcomes,
        }))?;
    }
    Ok(if report.failed() == 0 {
        Exit::Fine
    } else {
        Exit::Findings
    })
}

fn read(files: &[PathBuf], context: &Context) -> Result<Mesh> {
    sources::load(&sources::read(files)?, &context.screen)
}
