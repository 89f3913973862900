//! Logging of the servers: stderr, one line an event, text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::{Color, Global};
use crate::config;

/// Who is logging: a server tells what it does, a command only what goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    Server,
    Command,
}

/// Starts logging, once in the life of the process.
pub(crate) fn start(speaker: Speaker, global: &Global) {
    let level = match (speaker, global.quiet, global.verbose) {
        (_, true, _) => "error",
        (Speaker::Server, _, 0) | (Speaker::Command, _, 1) => "info",
        (Speaker::Command, _, 0) => "warn",
        (Speaker::Server, _, 1) | (Speaker::Command, _, 2) => "debug",
        (Speaker::Server | Speaker::Command, _, _) => "trace",
    };
    // Libraries below us talk at debug about every frame; their noise needs -vvv.
    let ours = ["botmesh", "ca", "proxy", "audit", "policy", "spiffe", "spiffe_tls"];
    let mut directives = vec![if level == "trace" { "debug" } else { "warn" }.to_owned()];
    if level != "trace" {
        // It warns of frames that a peer can send as often as it likes.
        directives.push("h2=error".to_owned());
    }
    directives.extend(ours.iter().map(|name| format!("{name}={level}")));
    let filter = EnvFilter::new(directives.join(","));
    let ansi = match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal() && !config::no_color(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi);
    let started = if config::log_as_json() {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
    // Only a second call in one process can fail, and then logging is on already.
    drop(started);
}
