//! `policy explain`: the verdict of the same compiled policy that the proxies ask, and what would have to differ.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use ca_api::Generation;
use ca_api::admin::{MeshSources, path};
use policy::{
    Callee, CanonicalPath, DenyReason, Explainer, Explanation, HttpAsk, Mesh, Method, PathError, RuleId, Source, Tick,
    Verdict, What, grpc,
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
        (None, ..) => return Err(Failure::usage("say FROM, TO and a call, or --batch FILE").into()),
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
        let (method, target) = match &question.call {
            Typed::Request { method, target } => (method, target),
            Typed::Connection(what) => {
                let explanation = explainer.explain(self.now, &from, &question.to, what);
                return Ok(Answer::Judged(Box::new(explanation)));
            }
        };
        let method = Method::parse(method).map_err(|error| Failure::usage(error.to_string()))?;
        // Nothing of the query is ever matched: the proxies cut it off before they decide.
        let target = target.split('?').next().unwrap_or_default();
        match CanonicalPath::parse(target.as_bytes()) {
            Ok(path) => {
                let what = What::Http(HttpAsk::new(method, path));
                let explanation = explainer.explain(self.now, &from, &question.to, &what);
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
    to: Callee,
    call: Typed,
}

/// What is asked, as typed.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    /// A request, whose path may be one that no proxy takes.
    Request { method: String, target: String },
    /// A connection that is no request.
    Connection(What),
}

impl Typed {
    fn target(&self) -> &str {
        match self {
            Self::Request { target, .. } => target,
            Self::Connection(_) => "",
        }
    }
}

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { method, target } => write!(f, "{method} {}", printable(target)),
            Self::Connection(what) => what.fmt(f),
        }
    }
}

impl Question {
    fn new(from: &str, to: &Callee, call: &[String]) -> Result<Self> {
        let words: Vec<&str> = call.iter().flat_map(|word| word.split_ascii_whitespace()).collect();
        let question = |call| Self {
            from: from.to_owned(),
            to: to.clone(),
            call,
        };
        if let Some(what) = What::connection(&words.join(" ")) {
            return Ok(question(Typed::Connection(what)));
        }
        let [method, target] = words.as_slice() else {
            let message = format!(
                "`{}` is no call, such as 'GET /orders/17', 'grpc acme.Orders/Get', 'tcp 5432', tls or 'postgres orders'",
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
        let method = method.to_owned();
        Ok(question(Typed::Request { method, target }))
    }

    /// Reads a line of a batch: FROM TO CALL.
    fn from_line(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [from, to, call @ ..] = words.as_slice() else {
            anyhow::bail!("not FROM TO CALL");
        };
        let to = to.parse().with_context(|| (*to).to_owned())?;
        let call: Vec<String> = call.iter().map(|word| (*word).to_owned()).collect();
        Self::new(from, &to, &call)
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
                "from": from, "to": question.to, "method": method, "path": question.call.target(), "verdict": "deny",
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
        Answer::Judged(explanation) => judged(explanation, &question.call, screen)?,
        Answer::BadPath { from, error, .. } => {
            let what = &question.call;
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

fn judged(explanation: &Explanation, call: &Typed, screen: &Screen) -> Result<()> {
    let Explanation {
        from,
        to,
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
    screen.line(format!("{word}  {}  {from} → {to}  {call}", bold(&by)))?;
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

    fn to() -> Callee {
        "prod/orders".parse().unwrap()
    }

    #[test]
    fn a_call_is_a_method_and_a_path_however_it_is_quoted() {
        let one = Question::new("a", &to(), &["GET /orders/17".to_owned()]).unwrap();
        let two = Question::new("a", &to(), &["GET".to_owned(), "/orders/17".to_owned()]).unwrap();
        assert_eq!(one, two);
        let grpc = Question::new("a", &to(), &["grpc acme.Orders/Get".to_owned()]).unwrap();
        assert_eq!(grpc.call.to_string(), "POST /acme.Orders/Get");
        for call in ["tcp 5432", "tls"] {
            let question = Question::new("a", &to(), &[call.to_owned()]).unwrap();
            assert_eq!(question.call.to_string(), call);
        }
        for wrong in [
            "GET",
            "",
            "GET /a b",
            "tcp",
            "tcp 0 1",
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
        std::fs::write(
            &file,
            "a/b prod/orders GET /x\n\na/b prod/orders PUT /y\na/b prod/db tcp 5432\na/b tls://a.b tls\n",
        )
        .unwrap();
        assert_eq!(batch(&file).unwrap().len(), 4);
    }
}
