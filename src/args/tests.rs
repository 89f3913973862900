//! What is typed, and what is refused where it is typed.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("botmesh").chain(line.split_whitespace()))
}

#[test]
fn the_command_tree_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn what_follows_the_dashes_belongs_to_the_command_that_is_run() {
    let cli = parse("run --as prod/backfill -- curl -s -o /dev/null http://orders.prod.mesh/").unwrap();
    let Command::Run(run) = cli.command else {
        panic!("not run")
    };
    assert_eq!(run.bot.as_str(), "prod/backfill");
    assert_eq!(run.command.len(), 5);
    assert_eq!(cli.global.output, Format::Table);
}

#[test]
fn run_without_a_command_is_a_usage_error() {
    assert!(parse("run --as prod/backfill").is_err());
    assert!(parse("run --as prod/backfill --").is_err());
}

#[test]
fn a_name_outside_the_grammar_is_refused_where_it_is_typed() {
    for line in [
        "run --as Prod/x -- true",
        "host token a/b",
        "policy explain a .. GET_/",
        "run --as botmesh/ca -- true",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_server_is_a_unix_socket_and_nothing_else() {
    assert!(parse("status --server unix:/run/x.sock").is_ok());
    for server in ["/run/x.sock", "http://127.0.0.1:7070", "unix:"] {
        assert!(parse(&format!("status --server {server}")).is_err(), "{server}");
    }
}

#[test]
fn a_revision_may_name_its_epoch() {
    assert_eq!(
        revision("7"),
        Ok(RevisionRef {
            epoch: None,
            revision: 7
        })
    );
    assert_eq!(
        revision("2.7"),
        Ok(RevisionRef {
            epoch: Some(2),
            revision: 7
        })
    );
    for wrong in ["", "x", "1.", ".1", "-1", "1.2.3"] {
        assert!(revision(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_call_may_be_one_word_or_two() {
    for line in [
        "policy explain a/b c/d GET /x",
        "policy explain a/b c/d GET /x --mesh m.yaml -o json",
    ] {
        let Command::Policy(Policy::Explain(explain)) = parse(line).unwrap().command else {
            panic!("not explain")
        };
        assert_eq!(explain.call, ["GET", "/x"]);
    }
}

#[test]
fn a_quarantine_is_of_one_bot_or_one_host_and_its_time_is_not_nothing() {
    let cli = parse("quarantine prod/x --reason r --for 2h").unwrap();
    let Command::Quarantine(quarantine) = cli.command else {
        panic!("not quarantine")
    };
    assert_eq!(quarantine.for_, Some(Duration::from_secs(7200)));
    assert!(parse("quarantine --host web-1 --reason r --local").is_ok());
    for line in [
        "quarantine prod/x --host web-1 --reason r",
        "quarantine Prod/X --reason r",
        "quarantine prod/x --reason r --for 0s",
        "quarantine prod/x --reason r --for 2",
        "quarantine prod/x --reason r --for h",
        "quarantine prod/x --reason r --for -1h",
        "quarantine prod/x --reason r --for 999999999999999999d",
        "release prod/x --reason r",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_rotation_is_begun_or_something_else_is_done_with_it() {
    for line in [
        "secret rotate key --reason r",
        "secret rotate key --reason r --fd 3 --canary prod/x --canary-for 10s --wait 2m --without-away",
        "secret rotate key --resume --without-away",
        "secret rotate key --status",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    for line in [
        "secret rotate",
        "secret rotate key --status --abort",
        "secret rotate key --resume --revoked",
        "secret rotate key --fd 3 --file x",
        "secret rotate key --canary Prod/X",
        "secret rotate key value",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn commands_of_later_versions_do_not_exist() {
    for line in ["grant list", "tap", "top", "backup", "secret revoke key"] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[cfg(not(feature = "test-clock"))]
#[test]
fn the_default_build_has_no_test_clock() {
    assert!(!version().contains("test-clock"));
    assert!(parse("status --clock unix:/tmp/c.sock").is_err());
}

#[cfg(feature = "test-clock")]
#[test]
fn a_build_with_the_test_clock_says_so() {
    assert!(version().contains("test-clock"));
    assert!(parse("status --clock unix:/tmp/c.sock").is_ok());
}
