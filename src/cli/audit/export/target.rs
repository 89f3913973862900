//! Where records go, and when they have arrived.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use spiffe::time::Clock;
use tokio::time::Instant;

use super::answer::{Verdict, judge};
use super::collector::{Collector, Lost};
use super::endpoint::{self, Endpoint};
use super::headers::Source;
use super::item::{Item, Origin};
use super::lines::{self, Lines};
use super::pace::{Pace, random};
use super::{ocsf, otlp};
use crate::args::{AuditExport, ExportFormat};
use crate::cli::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Screen, printable};

/// How long a collector may take nothing where the export is not followed.
const GIVE_UP: Duration = Duration::from_secs(300);

/// How often it is said again that it takes nothing.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Where records go.
#[derive(Debug)]
pub(super) enum Target {
    Collector(Box<Sending>),
    Lines(Lines),
}

/// A collector, and how long it is waited for.
#[derive(Debug)]
pub(super) struct Sending {
    collector: Collector,
    headers: Source,
    clock: Clock,
    pace: Pace,
    give_up: Option<Duration>,
}

impl Target {
    /// Reads what was typed.
    pub(super) fn of(args: &AuditExport, context: &Context) -> Result<Self> {
        let is_url = endpoint::is_url(&args.to);
        let default = if is_url { ExportFormat::Otlp } else { ExportFormat::Ocsf };
        match (args.format.unwrap_or(default), is_url) {
            (ExportFormat::Otlp, true) => Self::collector(args, context),
            (ExportFormat::Ocsf, false) => Self::lines(args),
            (ExportFormat::Ocsf, true) => {
                Err(Failure::usage("OCSF has no protocol of its own: --to a file or -").into())
            }
            (ExportFormat::Otlp, false) => {
                Err(Failure::usage("OTLP goes to a collector: --to otlp+http://HOST:PORT/v1/logs").into())
            }
        }
    }

    fn collector(args: &AuditExport, context: &Context) -> Result<Self> {
        let endpoint = Endpoint::parse(&args.to)?;
        let headers = Source::open(args.headers.clone(), args.headers_fd)?;
        if args.ca.is_some() && !endpoint.tls {
            return Err(Failure::usage("--ca is for otlp+https://").into());
        }
        if endpoint.is_open() {
            if !headers.is_none() {
                let message = format!("what is in the headers could be read on the way to {endpoint}");
                return Err(Failure::usage(message).hint("use otlp+https://").into());
            }
            context.screen.warn(format!(
                "the records can be read, and changed, on the way to {endpoint}"
            ));
        }
        let give_up = args.give_up.or_else(|| (!args.follow).then_some(GIVE_UP));
        Ok(Self::Collector(Box::new(Sending {
            collector: Collector::new(endpoint, args.ca.clone(), context.clock.clone())?,
            headers,
            clock: context.clock.clone(),
            pace: Pace::default(),
            give_up,
        })))
    }

    fn lines(args: &AuditExport) -> Result<Self> {
        if args.headers.is_some() || args.headers_fd.is_some() || args.ca.is_some() || args.give_up.is_some() {
            return Err(Failure::usage("--headers, --headers-fd, --ca and --give-up are for a collector").into());
        }
        if args.to == "-" {
            if args.cursor.is_some() {
                let message = "a pipe does not say what its reader has taken, so no place can be kept: --to a file";
                return Err(Failure::usage(message).into());
            }
            return Ok(Self::Lines(Lines::Stdout));
        }
        let path = PathBuf::from(&args.to);
        lines::open(&path)?;
        Ok(Self::Lines(Lines::File(path)))
    }

    pub(super) const fn is_stdout(&self) -> bool {
        matches!(self, Self::Lines(Lines::Stdout))
    }

    /// How many bytes a record adds to a batch.
    pub(super) fn size(&self, item: &Item, origin: &Origin) -> usize {
        match self {
            Self::Collector(_) => otlp::size(item, origin),
            // The event holds the line, and about as much again.
            Self::Lines(_) => item.sealed.line.len().saturating_mul(3),
        }
    }

    /// Returns when all records have arrived, with how many of them the collector rejected for good.
    pub(super) async fn send(&mut self, origin: &Origin, items: &[Item], screen: &Screen) -> Result<u64> {
        match self {
            Self::Collector(sending) => sending.send(origin, items, screen).await,
            Self::Lines(lines) => {
                let mut bytes = Vec::new();
                for item in items {
                    serde_json::to_writer(&mut bytes, &ocsf::event(item, origin)).context("write an event")?;
                    bytes.push(b'\n');
                }
                lines.write(&bytes, screen)?;
                Ok(0)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collector(sending) => sending.collector.endpoint.fmt(f),
            Self::Lines(Lines::Stdout) => f.write_str("stdout"),
            Self::Lines(Lines::File(path)) => path.display().fmt(f),
        }
    }
}

/// A time in which nothing was taken.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    said: Instant,
}

impl Sending {
    async fn send(&mut self, origin: &Origin, items: &[Item], screen: &Screen) -> Result<u64> {
        let sent = items.len() as u64;
        let body = Bytes::from(packed(&otlp::request(origin, items))?);
        let mut outage: Option<Outage> = None;
        loop {
            let headers = self.headers.read()?;
            let (after, why) = match self.collector.post(&body, &headers).await {
                Ok(answer) => match judge(&answer, sent, self.clock.now()) {
                    Verdict::Taken { rejected, said } => {
                        self.pace.reset();
                        self.taken(outage, rejected, &headers.masked(said), screen);
                        return Ok(rejected);
                    }
                    Verdict::Again { after, why } => (after, headers.masked(why)),
                    Verdict::Refused { exit, why, hint } => {
                        let why = headers.masked(why);
                        let message = format!("{} refused {sent} records: {why}", self.collector.endpoint);
                        return Err(Failure::new(exit, message).hint(hint).into());
                    }
                },
                Err(Lost::SetUp { what }) => return Err(Failure::invalid_file(what).into()),
                Err(lost) => (None, printable(&format!("{:#}", anyhow::Error::new(lost)))),
            };
            let wait = self.pace.next(after, random());
            outage = Some(self.again(outage, sent, &why, screen)?);
            tokio::time::sleep(wait).await;
        }
    }

    /// Says what is worth saying of an answer.
    fn taken(&self, outage: Option<Outage>, rejected: u64, said: &str, screen: &Screen) {
        let endpoint = &self.collector.endpoint;
        if let Some(outage) = outage {
            let seconds = outage.since.elapsed().as_secs();
            screen.warn(format!("{endpoint} takes records again, after {seconds} s"));
        }
        if rejected > 0 {
            screen.warn(format!("{endpoint} rejected {rejected} records for good: {said}"));
        } else if !said.is_empty() {
            screen.warn(format!("{endpoint} says: {said}"));
        }
    }

    /// Says that nothing was taken, at first and then now and then, or gives up.
    fn again(&self, outage: Option<Outage>, sent: u64, why: &str, screen: &Screen) -> Result<Outage> {
        let now = Instant::now();
        let endpoint = &self.collector.endpoint;
        let Some(mut outage) = outage else {
            screen.warn(format!(
                "{endpoint} takes nothing, and {sent} records wait: {why}; trying again"
            ));
            return Ok(Outage { since: now, said: now });
        };
        if self.give_up.is_some_and(|give_up| now - outage.since >= give_up) {
            let seconds = (now - outage.since).as_secs();
            let message = format!("{endpoint} took nothing for {seconds} s: {why}");
            return Err(Failure::new(Exit::Unreachable, message)
                .hint("what it had taken before is kept in the cursor; the next run goes on from there")
                .into());
        }
        if now - outage.said >= SAY_EVERY {
            outage.said = now;
            let seconds = (now - outage.since).as_secs();
            screen.warn(format!("{endpoint} has taken nothing for {seconds} s: {why}"));
        }
        Ok(outage)
    }
}

fn packed(body: &[u8]) -> Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(body).context("pack a request")?;
    packer.finish().context("pack a request")
}
