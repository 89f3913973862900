//! `demo --attack`: tries to break the demo's mesh. Each line says what was tried, what refused it, and why; at the end every attempt
//! must be found in a ledger. An attack that succeeds, or one that left no trace, makes the exit code 1.

pub(crate) mod stolen;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cli::demo::bots::{Caller, call};
use crate::cli::demo::stage::Stage;
use crate::cli::demo_bot::Answered;
use crate::cli::site::{Ports, ProxySettings, ProxySite};
use crate::cli::{Context, audit, up};
use crate::exit::Exit;
use crate::output::{Screen, bold, dim, green, padded, red};

/// How long a refusal may take to reach a ledger.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// More records than a demo makes of one kind.
const RECORDS_MAX: u64 = 1_000;

/// Paths that one reader could take for an allowed one and another for a forbidden one.
const TRICKS: [&str; 7] = [
    "/orders/..%2fadmin%2fkeys",
    "/orders/%2e%2e/admin/keys",
    "/orders/../admin/keys",
    "/orders//17",
    "/orders/17;/../../admin/keys",
    "/orders/17%00",
    "/ADMIN/keys",
];

/// One attempt and what became of it.
#[derive(Debug, Serialize)]
struct Attempt {
    tried: &'static str,
    how: String,
    refused_by: &'static str,
    /// The word of the refusal; none when the attack succeeded.
    reason: Option<String>,
    /// Where its record must be found: ledger and filter.
    #[serde(skip)]
    evidence: Option<Evidence>,
    recorded: bool,
}

#[derive(Debug)]
struct Evidence {
    ledger: PathBuf,
    filter: String,
    /// The address that a stranger came from, which filters do not know.
    source: Option<Ipv4Addr>,
}

/// Runs every attack, stops everything, and looks for each in the ledgers.
pub(crate) async fn run(mut stage: Stage, context: &Context) -> Result<Exit> {
    let mut checkout = Caller::start(&stage.web_1, Some("demo/checkout"))?;
    let mut attempts = vec![
        wrong_process(&stage).await?,
        stolen_certificate(&stage).await?,
        squatter(&mut stage, &mut checkout).await?,
        forged_header(&stage, &mut checkout).await?,
    ];
    for path in TRICKS {
        attempts.push(path_trick(&stage, &mut checkout, path).await?);
    }
    attempts.push(replayed_token(&stage, context).await?);
    checkout.stop().await?;
    let dir = stage.dir.clone();
    stage.strike().await?;
    attempts.push(tampered_ledger(&dir)?);

    let mut exit = Exit::Fine;
    for attempt in &mut attempts {
        attempt.look_up();
        if attempt.reason.is_none() || !attempt.recorded {
            exit = Exit::Findings;
        }
        attempt.print(&context.screen)?;
    }
    if context.screen.is_table() {
        let text = if exit == Exit::Fine {
            green("every attack was refused and is on record")
        } else {
            red("an attack succeeded, or left no trace")
        };
        context.screen.line(text)?;
    }
    Ok(exit)
}

impl Evidence {
    /// The record, if it is there.
    fn record(&self) -> Option<Value> {
        let mut records = audit::find(&self.ledger, &self.filter, RECORDS_MAX)
            .unwrap_or_default()
            .into_iter();
        let source = self.source.map(|source| source.to_string());
        records.find(|record| source.is_none() || record.get("source").and_then(Value::as_str) == source.as_deref())
    }

    /// Waits until it is there.
    async fn appears(&self) -> Option<Value> {
        let deadline = Instant::now() + RECORD_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(record) = self.record() {
                return Some(record);
            }
            sleep(Duration::from_millis(25)).await;
        }
        None
    }
}

impl Attempt {
    /// Looks for the record. What a stranger is told is an alert of TLS; the ledger has the word.
    fn look_up(&mut self) {
        let Some(evidence) = &self.evidence else {
            self.recorded = true;
            return;
        };
        let record = evidence.record();
        self.recorded = record.is_some();
        let word = record
            .as_ref()
            .and_then(|record| record.get("reason"))
            .and_then(Value::as_str);
        if let (Some(reason), Some(word), Some(_)) = (&mut self.reason, word, evidence.source) {
            word.clone_into(reason);
        }
    }

    fn print(&self, screen: &Screen) -> Result<()> {
        if !screen.is_table() {
            return Ok(screen.document(self)?);
        }
        let verdict = if self.reason.is_some() {
            green("refused  ")
        } else {
            red("SUCCEEDED")
        };
        let reason = self.reason.as_deref().unwrap_or("nothing");
        let record = match (&self.evidence, self.recorded) {
            (None, _) => String::new(),
            (Some(_), false) => red("  not in the ledger"),
            (Some(evidence), true) => dim(&format!("  in {}: {}", name_of(&evidence.ledger), evidence.filter)),
        };
        screen.line(format!(
            "  {verdict}  {}  by {}: {}{record}",
            padded(&bold(self.tried), 24),
            self.refused_by,
            reason
        ))?;
        Ok(screen.line(dim(&format!("             {}", self.how)))?)
    }
}

fn name_of(ledger: &Path) -> String {
    let host = ledger.parent().and_then(Path::file_name).unwrap_or_default();
    format!("{}/ledger", host.to_string_lossy())
}

fn ledger(stage: &Stage, host: &str) -> PathBuf {
    stage.dir.join(host).join("ledger")
}

/// The reason of a refusal by a proxy; an answer of the callee has none.
fn reason(answered: &Answered) -> Option<String> {
    answered.denied.as_ref()?;
    answered
        .body
        .get("reason")
        .and_then(Value::as_str)
        .map(ToOwned::to_owned)
}

/// The record of a call at its caller's proxy.
fn call_record(stage: &Stage, host: &str, answered: &Answered, more: &str) -> Option<Evidence> {
    let id = answered.call.as_deref()?;
    Some(Evidence {
        ledger: ledger(stage, host),
        filter: format!("id={id}{more}"),
        source: None,
    })
}

async fn wrong_process(stage: &Stage) -> Result<Attempt> {
    let mut nobody = Caller::start(&stage.web_1, None)?;
    let answered = nobody.call(&call("GET", "demo/orders", "/orders/17", &[])).await?;
    nobody.stop().await?;
    Ok(Attempt {
        tried: "wrong process",
        how: "the same user and program as demo/checkout, but no process that an operator bound to it".to_owned(),
        refused_by: "web-1's proxy",
        reason: reason(&answered),
        evidence: call_record(stage, "web-1", &answered, " verdict=deny"),
        recorded: false,
    })
}

async fn stolen_certificate(stage: &Stage) -> Result<Attempt> {
    let outcome = stolen::present(stage).await?;
    Ok(Attempt {
        tried: "stolen certificate",
        how: format!(
            "the chain of {}, read off web-2's port, presented to web-1 from {} with a key of the thief's",
            outcome.id, outcome.source
        ),
        refused_by: "web-1's proxy",
        reason: outcome.refused,
        evidence: Some(Evidence {
            ledger: ledger(stage, "web-1"),
            filter: "kind=strangers".to_owned(),
            source: Some(outcome.source),
        }),
        recorded: false,
    })
}

async fn squatter(stage: &mut Stage, checkout: &mut Caller) -> Result<Attempt> {
    let listen = format!("127.0.0.1:{}", stage.quotes_port);
    stage.squat(&listen).await?;
    let answered = checkout.call(&call("GET", "demo/quotes", "/quotes/1", &[])).await?;
    Ok(Attempt {
        tried: "squatter",
        how: format!(
            "a process that is not demo/quotes listens on its port {listen}; demo/checkout may call demo/quotes"
        ),
        refused_by: "web-2's proxy",
        reason: reason(&answered).filter(|reason| reason == "callee_mismatch"),
        evidence: call_record(stage, "web-1", &answered, ""),
        recorded: false,
    })
}

async fn forged_header(stage: &Stage, checkout: &mut Caller) -> Result<Attempt> {
    let forged = "spiffe://demo.internal/demo/admin";
    let headers = [
        ("x-botmesh-caller", forged),
        ("X_Botmesh_Caller", forged),
        ("x-forwarded-client-cert", "URI=spiffe://demo.internal/demo/admin"),
    ];
    let answered = checkout
        .call(&call("GET", "demo/orders", "/orders/17", &headers))
        .await?;
    let body = answered.body.to_string();
    let true_caller = answered.body.get("caller") == Some(&serde_json::json!(["spiffe://demo.internal/demo/checkout"]));
    let stripped = true_caller && !body.contains("demo/admin") && !body.contains("x_botmesh_caller");
    Ok(Attempt {
        tried: "forged identity header",
        how: format!(
            "demo/checkout says that it is {forged}, in three spellings; demo/orders saw only who it really is"
        ),
        refused_by: "both proxies",
        reason: stripped.then(|| "the headers were removed".to_owned()),
        evidence: call_record(stage, "web-1", &answered, " from=spiffe://demo.internal/demo/checkout"),
        recorded: false,
    })
}

async fn path_trick(stage: &Stage, checkout: &mut Caller, path: &'static str) -> Result<Attempt> {
    let answered = checkout.call(&call("GET", "demo/orders", path, &[])).await?;
    Ok(Attempt {
        tried: "path trick",
        how: format!("GET {path}"),
        refused_by: "web-1's proxy",
        reason: reason(&answered),
        evidence: call_record(stage, "web-1", &answered, " verdict=deny"),
        recorded: false,
    })
}

/// Joins a second proxy as web-1, with the token that web-1 has used and a key of its own.
async fn replayed_token(stage: &Stage, context: &Context) -> Result<Attempt> {
    let dir = stage.dir.join("thief");
    std::fs::create_dir(&dir).context("make the thief's folder")?;
    let thief = ProxySite::in_folder(&stage.web_1.files.host, &dir);
    thief.write_config(&ProxySettings {
        trust_domain: &stage.ca.trust_domain,
        ca: stage.ca.node_api.parse().context("read the CA's address")?,
        state: &dir,
        ports: Ports::Free,
        more: "",
    })?;
    thief.write_token(&stage.spent_token)?;
    let child = thief
        .program(&up::passed_on(context))
        .log_to(&dir.join("proxy.log"))
        .start()?;
    let evidence = Evidence {
        ledger: ledger(stage, "ca"),
        filter: "kind=token_refused".to_owned(),
        source: None,
    };
    let refused = evidence.appears().await;
    child.stop().await?;
    let reason = refused.map(|record| {
        let word = record.pointer("/detail/reason").and_then(Value::as_str);
        word.unwrap_or("token_refused").to_owned()
    });
    Ok(Attempt {
        tried: "replayed join token",
        how: "a second machine says that it is web-1, with the token that web-1 has used".to_owned(),
        refused_by: "the CA",
        reason,
        evidence: Some(evidence),
        recorded: false,
    })
}

/// Changes who a record is about, in a copy of web-1's ledger and without changing its length.
fn tampered_ledger(dir: &Path) -> Result<Attempt> {
    let (original, copy) = (dir.join("web-1/ledger"), dir.join("tampered"));
    copy_folder(&original, &copy)?;
    let changed = change_a_record(&copy)?;
    let intact = audit::verified(&original, None).is_ok();
    let found = audit::verified(&copy, None).err().filter(|_| intact && changed);
    Ok(Attempt {
        tried: "tampered ledger",
        how: "in a copy of web-1's ledger one record names demo/chequers where it named demo/checkout".to_owned(),
        refused_by: "audit verify",
        reason: found.map(|failure| failure.to_string()),
        evidence: None,
        recorded: false,
    })
}

fn change_a_record(ledger: &Path) -> Result<bool> {
    let mut segments: Vec<PathBuf> = std::fs::read_dir(ledger.join("segments"))
        .context("read the copied segments")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    segments.sort();
    for segment in segments {
        let text = std::fs::read_to_string(&segment).context("read a segment")?;
        let other = text.replacen("demo/checkout", "demo/chequers", 1);
        if other != text {
            std::fs::write(&segment, other).context("write a segment")?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies a folder of plain files and folders, two levels being all that a ledger has of them and then some.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).with_context(|| format!("create {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let path = entry.context("read an entry")?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}
