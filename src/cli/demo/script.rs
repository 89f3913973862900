//! The demo's calls, and one line for each: verdict, who to whom, what, by which rule or for which reason, over which TLS, how long.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::cli::audit;
use crate::cli::demo::bots::{Caller, call};
use crate::cli::demo::stage::Stage;
use crate::cli::demo_bot::Answered;
use crate::output::{Screen, bold, dim, green, padded, red};

/// Who calls, from which host.
const CHECKOUT: Role = Role {
    host: "web-1",
    bot: Some("demo/checkout"),
};
/// See [`CHECKOUT`].
const REPORT: Role = Role {
    host: "web-2",
    bot: Some("demo/report"),
};
/// A process of the same user that no operator bound to a bot.
const NOBODY: Role = Role {
    host: "web-1",
    bot: None,
};

/// The calls, in the order of the story.
const CALLS: [(Role, &str, &str, &str); 7] = [
    (CHECKOUT, "demo/orders", "GET", "/orders/17"),
    (CHECKOUT, "demo/orders", "DELETE", "/orders/17"),
    (CHECKOUT, "demo/orders", "GET", "/admin/keys"),
    (CHECKOUT, "demo/orders", "POST", "/refunds"),
    (REPORT, "demo/checkout", "GET", "/healthz"),
    (REPORT, "demo/orders", "GET", "/orders/17"),
    (NOBODY, "demo/orders", "GET", "/orders/17"),
];

/// A caller of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Role {
    host: &'static str,
    bot: Option<&'static str>,
}

/// What one call came to, by its answer and by the ledgers of both hosts.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    verdict: &'static str,
    from: &'static str,
    to: &'static str,
    method: &'static str,
    path: &'static str,
    status: u16,
    rule: Option<String>,
    reason: Option<String>,
    nearest: Option<String>,
    tls: Option<String>,
    peer: Option<String>,
    milliseconds: f64,
    call: Option<String>,
}

/// Runs the whole script; `refused` is called at the first refusal, for the stop watch.
pub(crate) async fn run(stage: &Stage, screen: &Screen, mut refused: impl FnMut()) -> Result<()> {
    let mut checkout = Caller::start(&stage.web_1, CHECKOUT.bot)?;
    let mut report = Caller::start(&stage.web_2, REPORT.bot)?;
    let mut nobody = Caller::start(&stage.web_1, NOBODY.bot)?;
    for (role, to, method, path) in CALLS {
        let caller = match role {
            CHECKOUT => &mut checkout,
            REPORT => &mut report,
            _ => &mut nobody,
        };
        let answered = caller.call(&call(method, to, path, &[])).await?;
        let shown = Shown::new(stage, role, (to, method, path), &answered);
        if answered.denied.is_some() {
            refused();
        }
        shown.print(screen)?;
    }
    for caller in [checkout, report, nobody] {
        caller.stop().await?;
    }
    Ok(())
}

impl Shown {
    fn new(
        stage: &Stage,
        role: Role,
        (to, method, path): (&'static str, &'static str, &'static str),
        answered: &Answered,
    ) -> Self {
        let ledger = |host: &str| stage.dir.join(host).join("ledger");
        let id = answered.call.as_deref().unwrap_or_default();
        let record = recorded(ledger(role.host), &format!("kind=call direction=out id={id}"));
        let text = |record: &Value, field: &str| record.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
        // The callee's proxy recorded the same call under an id of its own, with the TLS session it came by.
        let far = ["web-1", "web-2"]
            .into_iter()
            .map(|host| recorded(ledger(host), &format!("kind=call direction=in id={id}")))
            .find(|record| !record.is_null())
            .unwrap_or_default();
        let allowed = answered.denied.is_none() && answered.error.is_none();
        Self {
            verdict: if allowed { "allow" } else { "deny" },
            from: role.bot.unwrap_or("(nobody)"),
            to,
            method,
            path,
            status: answered.status,
            rule: text(&record, "rule"),
            reason: text(&record, "reason")
                .or_else(|| text(&answered.body, "reason"))
                .or_else(|| answered.error.clone()),
            nearest: text(&record, "nearest"),
            tls: text(&far, "tls"),
            peer: record
                .pointer("/to/id")
                .and_then(Value::as_str)
                .filter(|_| allowed)
                .map(ToOwned::to_owned),
            milliseconds: f64::from(u32::try_from(answered.micros).unwrap_or(u32::MAX)) / 1000.0,
            call: answered.call.clone(),
        }
    }

    fn print(&self, screen: &Screen) -> Result<()> {
        if !screen.is_table() {
            return Ok(screen.document(self)?);
        }
        let verdict = if self.verdict == "allow" {
            green("ALLOW")
        } else {
            red("DENY ")
        };
        let who = format!("{} → {}", self.from, self.to);
        let what = format!("{} {}", self.method, self.path);
        let by = match (&self.reason, &self.rule) {
            (None, Some(rule)) => rule.clone(),
            (Some(reason), Some(rule)) => format!("{reason}: {rule}"),
            (Some(reason), None) => reason.clone(),
            (None, None) => format!("status {}", self.status),
        };
        let wire = match (&self.tls, &self.peer) {
            (Some(tls), Some(peer)) => format!("{tls}  {peer}"),
            (None, Some(peer)) => peer.clone(),
            (_, None) => "never left the host".to_owned(),
        };
        screen.line(format!(
            "  {:>3} {verdict}  {}  {}  {}  {}  {}",
            self.status,
            padded(&who, 30),
            padded(&what, 18),
            padded(&bold(&by), 37),
            padded(&wire, 22),
            dim(&format!("{:.1} ms", self.milliseconds)),
        ))?;
        if let Some(nearest) = &self.nearest {
            screen.line(dim(&format!("             nearest  {nearest}")))?;
        }
        Ok(())
    }
}

/// The first record that a filter finds, or null.
fn recorded(ledger: PathBuf, filter: &str) -> Value {
    audit::find(&ledger, filter, 1)
        .ok()
        .and_then(|records| records.into_iter().next())
        .unwrap_or_default()
}
