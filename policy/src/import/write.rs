//! A proposal as a mesh file, with everything else that there is to do in its comments.

use std::fmt::Write as _;

use super::Proposal;
use super::propose::Leads;
use crate::outside::Scheme;

/// Writes a proposal; `again` is the command that made it.
#[must_use]
pub fn write(proposal: &Proposal, again: &str) -> String {
    let mut out = String::new();
    let bot = &proposal.bot;
    say(
        &mut out,
        &format!(
            "# What takes the place of the secrets of {bot}. Lay this file beside the other mesh files, narrow the paths, and apply."
        ),
    );
    if proposal.owner == NOBODY {
        say(
            &mut out,
            "# Nobody was named as the owner: write who is, or say --owner.",
        );
    }
    say(&mut out, "version: 1");
    credentials(&mut out, proposal);
    rules(&mut out, proposal);
    listeners(&mut out, &proposal.leads);
    values(&mut out, proposal, again);
    environment(&mut out, proposal);
    undecided(&mut out, proposal);
    out
}

/// Who owns a credential of which nobody was named.
pub const NOBODY: &str = "nobody yet";

fn say(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// A text as YAML takes it on one line, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn credentials(out: &mut String, proposal: &Proposal) {
    if proposal.added.is_empty() {
        return;
    }
    say(out, "credentials:");
    for added in &proposal.added {
        say(
            out,
            &format!(
                "  {}: {{{}, owner: {}}}",
                added.name,
                added.how,
                quoted(&proposal.owner)
            ),
        );
    }
}

fn rules(out: &mut String, proposal: &Proposal) {
    if proposal.leads.is_empty() {
        return;
    }
    say(out, "allow:");
    for leads in &proposal.leads {
        let key = if leads.to.scheme() == Scheme::Postgres {
            "postgres"
        } else {
            "http"
        };
        let calls: Vec<_> = leads.calls.iter().map(|call| quoted(call)).collect();
        let inject = leads
            .inject
            .as_ref()
            .map(|name| format!(", inject: {name}"))
            .unwrap_or_default();
        say(
            out,
            &format!(
                "  - {{id: {}, from: {}, to: {}, {key}: [{}]{inject}}}",
                leads.rule,
                proposal.bot,
                quoted(&leads.to.to_string()),
                calls.join(", "),
            ),
        );
    }
    for leads in proposal
        .leads
        .iter()
        .filter(|leads| leads.to.scheme() == Scheme::Postgres)
    {
        say(
            out,
            &format!(
                "# Where {} has a private address or an authority of its own:\n# destinations:\n#   {}: {{addresses: [10.0.0.0/8], ca: \"-----BEGIN CERTIFICATE-----\\n…\"}}",
                leads.to,
                quoted(&leads.to.to_string()),
            ),
        );
    }
}

fn listeners(out: &mut String, leads: &[Leads]) {
    if leads.is_empty() {
        return;
    }
    say(
        out,
        "#\n# proxy.yaml of its host, each listener a way to one destination:\n# listeners:",
    );
    for leads in leads {
        say(
            out,
            &format!(
                "#   - {{listen: \"127.0.0.1:{}\", to: {}}}",
                leads.port,
                quoted(&leads.to.to_string())
            ),
        );
    }
}

fn values(out: &mut String, proposal: &Proposal, again: &str) {
    if proposal.added.is_empty() {
        return;
    }
    say(
        out,
        "#\n# On its host, once this is applied, the values by standard input; or all that are in the file at once by the last line:",
    );
    for added in &proposal.added {
        // AWS takes the parts of a key together; what else has several names is one value.
        let between = if added.how.starts_with("sigv4") { ":" } else { " or " };
        let variables = added.variables.join(between);
        let part = if added.how.starts_with("postgres") {
            "the password of "
        } else {
            ""
        };
        say(
            out,
            &format!("#   botmesh secret put {}    # {part}{variables}", added.name),
        );
    }
    say(out, &format!("#   {again} --put"));
}

fn environment(out: &mut String, proposal: &Proposal) {
    if proposal.environment.is_empty() {
        return;
    }
    say(out, "#\n# What its own environment becomes:");
    for (name, value) in &proposal.environment {
        match (name, value) {
            (Some(name), Some(value)) => say(out, &format!("#   {name}={value}")),
            (Some(name), None) => say(out, &format!("#   {name} goes")),
            (None, Some(told)) => say(out, &format!("#   its client is told in another way: {told}")),
            (None, None) => {}
        }
    }
}

fn undecided(out: &mut String, proposal: &Proposal) {
    if !proposal.undecided.is_empty() {
        say(out, "#\n# Decide yourself:");
    }
    for undecided in &proposal.undecided {
        let mut line = String::new();
        write!(
            line,
            "#   {} (line {}): {}",
            undecided.name, undecided.line, undecided.why
        )
        .unwrap_or_default();
        say(out, &line);
    }
    if !proposal.kept.is_empty() {
        say(
            out,
            &format!(
                "#\n# Nothing secret was seen in these, which stay: {}",
                proposal.kept.join(" ")
            ),
        );
    }
}
