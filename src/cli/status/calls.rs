//! The calls of a proxy and their callees, as an operator reads them: what is as usual takes one line.

use std::io;

use ca_api::proxy_admin::{CalleeCalls, Calls, EndpointCalls};
use spiffe::id::BotName;

use crate::output::{Screen, green, red};

/// Prints them.
pub(super) fn show(calls: &Calls, screen: &Screen) -> io::Result<()> {
    let shed: u64 = calls.shed.values().sum();
    let none = if shed == 0 {
        "none was".to_owned()
    } else {
        format!("{} were", red(&shed.to_string()))
    };
    screen.line(format!(
        "  calls {} of {} under way, {none} refused for want of room since the start",
        calls.in_flight, calls.most
    ))?;
    for (bound, count) in calls.shed.iter().filter(|(_, count)| **count > 0) {
        screen.line(format!("       {count} of them: {}", bound_in_words(bound)))?;
    }
    calls.callees.iter().try_for_each(|callee| show_callee(callee, screen))
}

fn bound_in_words(bound: &str) -> &str {
    match bound {
        "process" => "the proxy carried as many as it may (bounds.calls)",
        "caller" => "one caller had as many as one may have (three quarters of bounds.calls)",
        "callee" => "as many were under way to the callee as it takes (max_in_flight)",
        "pending" => "too many waited for a connection (max_pending)",
        other => other,
    }
}

fn show_callee(callee: &CalleeCalls, screen: &Screen) -> io::Result<()> {
    let left_out = callee
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.left_out_ms.is_some())
        .count();
    let is_fine = left_out == 0 && callee.shut_out.is_empty();
    let word = if is_fine { green("reached") } else { red("in trouble") };
    let tried = if callee.retried + callee.not_retried == 0 {
        String::new()
    } else {
        format!(
            ", {} tried again, {} not for want of budget",
            callee.retried, callee.not_retried
        )
    };
    let name = callee.bot.as_ref().map(BotName::as_str).or(callee.outside.as_deref());
    screen.line(format!(
        "  to {}  {word}  {} under way{tried}",
        name.unwrap_or_default(),
        callee.in_flight
    ))?;
    if callee.endpoints.len() > 1 || left_out > 0 {
        callee
            .endpoints
            .iter()
            .try_for_each(|endpoint| show_endpoint(endpoint, screen))?;
    }
    for shut in &callee.shut_out {
        let left = seconds(shut.for_ms);
        screen.line(format!(
            "       {} is refused for {left} (breaker_open): its calls failed",
            shut.from
        ))?;
    }
    Ok(())
}

fn show_endpoint(endpoint: &EndpointCalls, screen: &Screen) -> io::Result<()> {
    let EndpointCalls {
        address,
        in_flight,
        failures,
        latency_us,
        ..
    } = endpoint;
    let how = match endpoint.left_out_ms {
        None => format!(
            "{in_flight} under way, answers in {}.{} ms",
            latency_us / 1_000,
            latency_us % 1_000 / 100
        ),
        Some(left) => format!("left out for {}: {failures} times nobody could connect", seconds(left)),
    };
    screen.line(format!("       {address}  {how}"))
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1_000, millis % 1_000 / 100)
}
