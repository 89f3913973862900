//! `apply` and `rollback`: whole or not at all, and back only when every connected host has it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use ca_api::Generation;
use ca_api::admin::{
    ApplyRequest, ApplyResponse, GenerationStatus, HostGeneration, HostState, MeshSource, RollbackRequest,
    WAIT_SECONDS_MAX, path,
};

use crate::applied::Applied;
use crate::args::{Apply, Rollback};
use crate::cli::Context;
use crate::client::{Peer, Refused, Server};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Screen, green, red};
use crate::sources;

/// Runs `apply`.
pub(crate) async fn apply(args: Apply, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    let memory = Applied::of(config::state_home().join("applied.json"), server.socket(), &args.files);
    let sources = match checked(&args.files, context)? {
        Checked::Passed(sources) => sources,
        Checked::TestsFailed => return Ok(Exit::Findings),
    };
    let request = ApplyRequest {
        sources,
        base: memory.base()?,
        force: args.force,
        dry_run: args.dry_run,
    };
    let response = match send(&request, &server).await? {
        Ok(response) => response,
        Err(refused) => return Err(refusal(refused, &server)),
    };
    if !response.dry_run
        && let Err(error) = memory.remember(response.generation)
    {
        let message = format!("warning: the next `apply` of these files will need --force: {error:#}");
        context.screen.warn(message);
    }
    let wait = if response.dry_run || args.no_wait {
        Wait::No
    } else {
        Wait::UntilLive
    };
    finish(&response, wait, &server, &context.screen).await
}

/// Runs `rollback`.
pub(crate) async fn rollback(args: Rollback, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    let request = RollbackRequest {
        revision: args.revision.revision,
        epoch: args.revision.epoch,
    };
    let response: ApplyResponse = match server.try_post(path::ROLLBACK, &request).await? {
        Ok(response) => response,
        Err(refused) => return Err(refusal(refused, &server)),
    };
    finish(&response, Wait::UntilLive, &server, &context.screen).await
}

/// What became of files before any server saw them.
pub(crate) enum Checked {
    /// They are valid and their tests pass.
    Passed(Vec<MeshSource>),
    /// A test failed; it was told.
    TestsFailed,
}

/// Reads, validates and tests files here first: errors then point into the user's own files, in colour.
pub(crate) fn checked(files: &[PathBuf], context: &Context) -> Result<Checked> {
    let sources = sources::read(files)?;
    let mesh = sources::load(&sources, &context.screen)?;
    let report = mesh.run_tests(context.clock.now());
    if report.failed() > 0 {
        context.screen.warn(report.render(context.screen.color()));
        return Ok(Checked::TestsFailed);
    }
    Ok(Checked::Passed(
        sources
            .into_iter()
            .map(|source| MeshSource {
                name: source.name,
                text: source.text,
            })
            .collect(),
    ))
}

/// Sends files to the CA.
pub(crate) async fn send(request: &ApplyRequest, server: &Server) -> Result<Result<ApplyResponse, Refused>> {
    server.try_post(path::APPLY, request).await
}

/// Turns the CA's refusal into an exit code and a way on.
pub(crate) fn refusal(refused: Refused, server: &Server) -> anyhow::Error {
    match refused.problem.code.as_str() {
        "invalid_mesh" | "other_trust_domain" => Failure::invalid_file(refused.problem.detail).into(),
        "tests_failed" => Failure::new(Exit::Findings, refused.problem.detail).into(),
        "base_mismatch" => Failure::new(Exit::Findings, refused.to_string())
            .hint("see who changed it: `botmesh status`; --force makes these files live all the same")
            .into(),
        "no_such_revision" => Failure::new(Exit::Usage, refused.to_string()).into(),
        _ => server.failure(refused),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    UntilLive,
}

async fn finish(response: &ApplyResponse, wait: Wait, server: &Server, screen: &Screen) -> Result<Exit> {
    for warning in &response.warnings {
        screen.warn(warning);
    }
    let status = match wait {
        Wait::No => None,
        Wait::UntilLive => {
            screen.note(format!(
                "revision {}: waiting until it is live on every connected host",
                response.generation
            ));
            Some(live(response.generation, server).await?)
        }
    };
    if screen.is_table() {
        screen.line(summary(response, status.as_ref()))?;
    } else {
        screen.document(&serde_json::json!({ "apply": response, "status": status }))?;
    }
    match status.as_ref().map(laggards).filter(|lag| !lag.is_empty()) {
        None => Ok(Exit::Fine),
        Some(lag) => {
            let message = format!(
                "revision {} is live at the CA, but not within {WAIT_SECONDS_MAX} s on {lag}",
                response.generation
            );
            Err(Failure::new(Exit::Unreachable, message)
                .hint("see `botmesh host list`; the revision stays")
                .into())
        }
    }
}

/// Waits, at most as long as the CA does, until a generation is live on every connected host.
pub(crate) async fn live(generation: Generation, server: &Server) -> Result<GenerationStatus> {
    let question = format!(
        "{}?epoch={}&revision={}&wait_seconds={WAIT_SECONDS_MAX}",
        path::GENERATION,
        generation.epoch,
        generation.revision
    );
    server
        .get_within(&question, Duration::from_secs(WAIT_SECONDS_MAX + 5))
        .await
}

fn summary(response: &ApplyResponse, status: Option<&GenerationStatus>) -> String {
    let tests = match (response.tests.passed, response.tests.failed) {
        (passed, 0) => format!("{passed} test calls passed"),
        (passed, failed) => format!("{passed} test calls passed, {} {failed}", red("failed")),
    };
    let done = match (response.dry_run, response.unchanged) {
        (true, _) => format!("would apply; revision {} stays live", response.generation),
        (false, true) => format!("unchanged, revision {}", response.generation),
        (false, false) => format!("applied, revision {}", response.generation),
    };
    let spread = status.map_or_else(String::new, |status| {
        format!(", live on {} of {}", status.live(), status.total())
    });
    format!("{} {done}{spread} ({tests})", green("ok"))
}

fn laggards(status: &GenerationStatus) -> String {
    let lag = |host: &HostGeneration| match host.state {
        HostState::Failed => format!("{} (failed: {})", host.host, crate::output::printable(&host.error)),
        HostState::Live | HostState::Behind => {
            let at = host
                .applied
                .map_or_else(|| "nothing".to_owned(), |applied| applied.to_string());
            format!("{} (at {at})", host.host)
        }
    };
    status.laggards().map(lag).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use ca_api::admin::{Problem, TestCounts};
    use http::StatusCode;
    use spiffe::id::HostName;

    use super::*;
    use crate::exit::code_of;

    fn response(dry_run: bool, unchanged: bool) -> ApplyResponse {
        ApplyResponse {
            generation: Generation { epoch: 1, revision: 7 },
            warnings: Vec::new(),
            tests: TestCounts { passed: 5, failed: 0 },
            unchanged,
            dry_run,
        }
    }

    fn host(name: &str, state: HostState) -> HostGeneration {
        HostGeneration {
            host: HostName::parse(name).unwrap(),
            connected: true,
            state,
            applied: Some(Generation { epoch: 1, revision: 6 }),
            error: "no room".to_owned(),
            quarantined: false,
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_summary_says_what_happened_and_where() {
        let status = GenerationStatus {
            generation: Generation { epoch: 1, revision: 7 },
            hosts: vec![host("web-1", HostState::Live), host("web-2", HostState::Behind)],
        };
        assert_eq!(
            plain(&summary(&response(false, false), Some(&status))),
            "ok applied, revision 1.7, live on 1 of 2 (5 test calls passed)"
        );
        assert_eq!(
            plain(&summary(&response(true, false), None)),
            "ok would apply; revision 1.7 stays live (5 test calls passed)"
        );
    }

    #[test]
    fn laggards_are_named_with_what_holds_them_up() {
        let status = GenerationStatus {
            generation: Generation { epoch: 1, revision: 7 },
            hosts: vec![
                host("a", HostState::Live),
                host("b", HostState::Behind),
                host("c", HostState::Failed),
            ],
        };
        assert_eq!(laggards(&status), "b (at 1.6), c (failed: no room)");
    }

    #[test]
    fn each_refusal_of_the_ca_has_its_exit_code() {
        let server = Server::at(Peer::Ca, "/ca.sock");
        for (code, status, exit) in [
            ("invalid_mesh", 422, Exit::InvalidFile),
            ("tests_failed", 422, Exit::Findings),
            ("base_mismatch", 409, Exit::Findings),
            ("no_such_revision", 404, Exit::Usage),
            ("not_an_operator", 403, Exit::NotAuthorised),
            ("unavailable", 503, Exit::Unreachable),
        ] {
            let problem = Problem {
                kind: "about:blank".to_owned(),
                title: "refused".to_owned(),
                status,
                detail: "why".to_owned(),
                code: code.to_owned(),
            };
            let refused = Refused {
                status: StatusCode::from_u16(status).unwrap(),
                problem,
            };
            assert_eq!(code_of(&refusal(refused, &server)), exit, "{code}");
        }
    }
}
