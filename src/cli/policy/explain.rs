//! `policy explain`: the verdict of the same compiled policy that the proxies ask, and what would have to differ.

use std::path::Path;

use anyhow::{Context as _, Result};
use ca_api::Generation;
use ca_api::admin::{MeshSources, path};
use policy::{
    CanonicalPath, DenyReason, Explainer, Explanation, Mesh, Method, PathError, RuleId, Source, Tick, Verdict, grpc,
};
use serde_json::{Value, json};
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

use crate::args::Explain;
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::config::read_bounded;
use crate::exit::{Exit, Failure};
use crate::output::{Screen, bold, dim, green, printable, red};
use crate::sources;

/// The largest file of calls that is read.
const BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs it.
pub(crate) async fn run(args: Explain, context: &Context) -> Result<Exit> {
    let ground = Ground::new(&args, context).await?;
    let explainer = Explainer::new(&ground.mesh);
    let questions = match (&args.batch, &args.from, &args.to) {
        (Some(file), ..) => batch(file)?,
        (None, Some(from), Some(to)) => vec![Question::new(from, to, &args.call)?],
        (None, ..) => return Err(Failure::usage("say FROM, TO and 'METHOD PATH', or --batch FILE").into()),
    };
    let mut exit = Exit::Fine;
    for question in &questions {
        let answer = ground.answer(&explainer, question)?;
        if args.exit_code && answer.is_refused() {
            exit = Exit::Findings;
        }
        show(&answer, question, &ground, &context.screen)?;
    }
    Ok(exit)
}

/// The mesh to ask, and the time to judge by.
struct Ground {
    mesh: Mesh,
    generation: Option<Generation>,
    now: Timestamp,
}

impl Ground {
    async fn new(args: &Explain, context: &Context) -> Result<Self> {
        let (sources, generation) = if args.mesh.is_empty() {
            let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
            let live: MeshSources = server.get(path::MESH).await?;
            let sources = live.sources.into_iter().map(|source| Source {
                name: source.name,
                text: source.text,
            });
            (sources.collect(), Some(live.generation))
        } else {
            (sources::read(&args.mesh)?, None)
        };
        let mesh = sources::load(&sources, &context.screen)?;
        Ok(Self {
            mesh,
            generation,
            now: args.at.unwrap_or_else(|| context.clock.now()),
        })
    }

    fn answer(&self, explainer: &Explainer<'_>, question: &Question) -> Result<Answer> {
        let from = self.caller(&question.from)?;
        let method = Method::parse(&question.method).map_err(|error| Failure::usage(error.to_string()))?;
        // Nothing of the query is ever matched: the proxies cut it off before they decide.
        let target = question.target.split('?').next().unwrap_or_default();
        match CanonicalPath::parse(target.as_bytes()) {
            Ok(path) => {
                let explanation = explainer.explain(self.now, &from, &question.to, &method, &path);
                Ok(Answer::Judged(Box::new(explanation)))
            }
            Err(error) => Ok(Answer::BadPath { from, method, error }),
        }
    }

    fn caller(&self, from: &str) -> Result<SpiffeId> {
        if from.starts_with("spiffe://") {
            return Ok(SpiffeId::parse(from).map_err(|error| Failure::usage(format!("{from}: {error}")))?);
        }
        let bot = BotName::parse(from).map_err(|error| Failure::usage(format!("{from}: {error}")))?;
        Ok(SpiffeId::for_bot(self.mesh.trust_domain(), &bot))
    }
}

/// One call to judge, as typed.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    from: String,
    to: BotName,
    method: String,
    target: String,
}

impl Question {
    fn new(from: &str, to: &BotName, call: &[String]) -> Result<Self> {
        let words: Vec<&str> = call.iter().flat_map(|word| word.split_ascii_whitespace()).collect();
        let [method, target] = words.as_slice() else {
            let message = format!(
                "`{}` is not METHOD PATH, such as 'GET /orders/17' or 'grpc acme.Orders/Get'",
                call.join(" ")
            );
            return Err(Failure::usage(message).into());
        };
        let (method, target) = if *method == grpc::WORD {
            let path = grpc::path(target).map_err(|error| Failure::usage(format!("{target}: {error}")))?;
            ("POST", path.as_str().to_owned())
        } else {
            (*method, (*target).to_owned())
        };
        Ok(Self {
            from: from.to_owned(),
            to: to.clone(),
            method: method.to_owned(),
            target,
        })
    }

    /// Reads a line of a batch: FROM TO METHOD PATH.
    fn from_line(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [from, to, method, target] = words.as_slice() else {
            anyhow::bail!("not FROM TO METHOD PATH");
        };
        let to = BotName::parse(to).with_context(|| (*to).to_owned())?;
        Self::new(from, &to, &[(*method).to_owned(), (*target).to_owned()])
    }
}

fn batch(file: &Path) -> Result<Vec<Question>> {
    let text = read_bounded(file, BATCH_BYTES_MAX)?;
    let mut questions = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let question = Question::from_line(line)
            .map_err(|error| Failure::invalid_file(format!("{}:{}: {error:#}", file.display(), at + 1)))?;
        questions.push(question);
    }
    Ok(questions)
}

/// The answer to one question.
enum Answer {
    /// By the policy.
    Judged(Box<Explanation>),
    /// The proxies answer 400 before they ask the policy.
    BadPath {
        from: SpiffeId,
        method: Method,
        error: PathError,
    },
}

impl Answer {
    fn is_refused(&self) -> bool {
        match self {
            Self::Judged(explanation) => explanation.verdict == Verdict::Deny,
            Self::BadPath { .. } => true,
        }
    }

    /// The promised fields: verdict, rule, reason, nearest, generation; and what else there is to say.
    fn document(&self, question: &Question, ground: &Ground) -> Result<Value> {
        let mut document = match self {
            Self::Judged(explanation) => serde_json::to_value(explanation)?,
            Self::BadPath { from, method, error } => json!({
                "from": from, "to": question.to, "method": method, "path": question.target, "verdict": "deny",
                "rule": null, "reason": "bad_path", "why": error.to_string(), "nearest": null,
            }),
        };
        if let Some(fields) = document.as_object_mut() {
            fields.insert("generation".to_owned(), serde_json::to_value(ground.generation)?);
            fields.insert("at".to_owned(), serde_json::to_value(ground.now)?);
        }
        Ok(document)
    }
}

fn show(answer: &Answer, question: &Question, ground: &Ground, screen: &Screen) -> Result<()> {
    if !screen.is_table() {
        return Ok(screen.document(&answer.document(question, ground)?)?);
    }
    match answer {
        Answer::Judged(explanation) => judged(explanation, screen)?,
        Answer::BadPath { from, error, .. } => {
            let what = format!("{} {}", question.method, printable(&question.target));
            screen.line(format!("{}  bad_path  {from} → {}  {what}", red("DENY"), question.to))?;
            screen.line(format!("  because   {error}"))?;
        }
    }
    let revision = ground
        .generation
        .map_or_else(|| "files as given".to_owned(), |live| format!("revision {live}"));
    screen.line(dim(&format!("  judged    by {revision}, at {}", ground.now)))?;
    Ok(())
}

fn judged(explanation: &Explanation, screen: &Screen) -> Result<()> {
    let Explanation {
        from,
        to,
        method,
        path,
        verdict,
        rule,
        reason,
        ..
    } = explanation;
    let word = match verdict {
        Verdict::Allow => green("ALLOW"),
        Verdict::Audit => bold("AUDIT"),
        Verdict::Deny => red("DENY"),
    };
    let reason = reason.map_or("", DenyReason::as_str);
    let rule = rule.as_ref().map_or("", RuleId::as_str);
    let by = [reason, rule]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    screen.line(format!("{word}  {}  {from} → {to}  {method} {path}", bold(&by)))?;
    if let Some(place) = &explanation.rule_at {
        screen.line(format!("  rule      {place}"))?;
    }
    if let Some(why) = &explanation.why {
        screen.line(format!("  because   {}", printable(why)))?;
    }
    if let Some(until) = explanation.audit_until {
        let text = "no rule allows it; audit_only carries and records it";
        screen.line(format!("  until     {until}: {text}"))?;
    }
    for limit in explanation.limits.iter().filter(|_| *verdict != Verdict::Deny) {
        let policy::Allowance { rate, burst } = limit.allowance;
        let place = dim(&limit.at.to_string());
        screen.line(format!(
            "  limit     {}  {place}  {rate}, {burst} at once, for each caller",
            limit.limit
        ))?;
    }
    // A deny rule wins over every allow, so no allow rule could be nearer.
    if *verdict != Verdict::Allow && explanation.reason != Some(DenyReason::DeniedByRule) {
        // Only a rule that links the two ends is the nearest; others are the closest that there is.
        let first = if explanation.nearest.is_some() {
            "nearest"
        } else {
            "closest"
        };
        for (at, candidate) in explanation.candidates.iter().enumerate() {
            let title = if at == 0 { first } else { "" };
            let (rule, place) = (&candidate.rule, dim(&candidate.at.to_string()));
            let ticks: Vec<String> = candidate.ticks.iter().map(tick).collect();
            screen.line(format!("  {title:<9} {rule}  {place}  {}", ticks.join("  ")))?;
        }
    }
    Ok(())
}

/// One attribute of a rule beside the call; the sign stands beside what the rule has, so colour is not needed.
fn tick(tick: &Tick) -> String {
    if tick.matches {
        format!("{} {}", tick.attribute, green("✓"))
    } else {
        format!("{} {} {}", tick.attribute, red("✗"), printable(&tick.rule_has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;

    fn to() -> BotName {
        BotName::parse("prod/orders").unwrap()
    }

    #[test]
    fn a_call_is_a_method_and_a_path_however_it_is_quoted() {
        let one = Question::new("a", &to(), &["GET /orders/17".to_owned()]).unwrap();
        let two = Question::new("a", &to(), &["GET".to_owned(), "/orders/17".to_owned()]).unwrap();
        assert_eq!(one, two);
        let grpc = Question::new("a", &to(), &["grpc acme.Orders/Get".to_owned()]).unwrap();
        assert_eq!(
            (grpc.method.as_str(), grpc.target.as_str()),
            ("POST", "/acme.Orders/Get")
        );
        for wrong in [
            "GET",
            "",
            "GET /a b",
            "grpc acme.Orders",
            "grpc /acme.Orders/Get",
            "grpc acme.Orders/*",
        ] {
            assert_eq!(
                code_of(&Question::new("a", &to(), &[wrong.to_owned()]).unwrap_err()),
                Exit::Usage,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_batch_names_the_line_that_is_no_call() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("calls");
        std::fs::write(&file, "a/b prod/orders GET /x\n\na/b Prod GET /x\n").unwrap();
        let error = batch(&file).unwrap_err();
        assert_eq!(code_of(&error), Exit::InvalidFile);
        assert!(error.to_string().contains("calls:3:"), "{error}");
        std::fs::write(&file, "a/b prod/orders GET /x\n\na/b prod/orders PUT /y\n").unwrap();
        assert_eq!(batch(&file).unwrap().len(), 2);
    }
}
