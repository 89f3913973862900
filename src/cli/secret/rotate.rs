//! `secret rotate`: a new value for every host that needs it, in steps that end where something is wrong.
//!
//! The value is sealed here to each host, so the CA carries what it cannot read.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::admin::{
    AdvanceRequest, FleetCredential, FleetCredentials, FleetHost, RotateRequest, RotationStatus, path,
};
use ca_api::rotation::{Phase, UNAUTHORIZED};
use proxy::credentials::Secret;
use proxy::credentials::age::Recipient;
use tokio::time::Instant;

use super::{Given, value};
use crate::args::SecretRotate;
use crate::client::Server;
use crate::exit::{Exit, Failure};
use crate::output::{Screen, green, printable};

/// How often the CA is asked how far the hosts are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(args: SecretRotate, server: &Server, screen: &Screen) -> Result<Exit> {
    let rotation = Rotation {
        args: &args,
        server,
        screen,
    };
    if args.status {
        let found = rotation.look().await?;
        return rotation.show(&found);
    }
    if args.abort {
        let found = rotation.advance(Phase::Aborted).await?;
        rotation.step("aborted", "every bot goes on with the value in use")?;
        return rotation.document(&found);
    }
    if args.revoked {
        let found = rotation.advance(Phase::Revoked).await?;
        rotation.step("revoked", "the hosts delete the value before")?;
        return rotation.document(&found);
    }
    if !args.resume {
        rotation.begin().await?;
    }
    rotation.go_on().await
}

struct Rotation<'a> {
    args: &'a SecretRotate,
    server: &'a Server,
    screen: &'a Screen,
}

impl Rotation<'_> {
    fn name(&self) -> &str {
        &self.args.which.name
    }

    async fn look(&self) -> Result<FleetCredential> {
        // A name is of letters, digits and dashes, or the CA does not know it: nothing of it is to be escaped.
        let fits = self
            .name()
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !fits {
            return Err(Failure::usage(format!("{} is no name of a credential", printable(self.name()))).into());
        }
        let found: FleetCredentials = self
            .server
            .get(&format!("{}?name={}", path::CREDENTIALS, self.name()))
            .await?;
        found
            .credentials
            .into_iter()
            .next()
            .context("the CA told of no credential")
    }

    async fn begin(&self) -> Result<()> {
        let Some(reason) = self.args.reason.clone() else {
            return Err(Failure::usage("say why: --reason REASON, for whoever reads the ledger").into());
        };
        let found = self.look().await?;
        let given = Given {
            command: "rotate",
            name: self.name(),
            fd: self.args.fd,
            file: self.args.file.as_deref(),
        };
        let secret = Secret::new(value(given)?.into_bytes());
        let secret = secret.map_err(|error| Failure::new(Exit::InvalidFile, format!("this is no value: {error}")))?;
        let sealed = found
            .hosts
            .iter()
            .filter(|host| !host.quarantined)
            .map(|host| sealed(&secret, host));
        let request = RotateRequest {
            name: self.name().to_owned(),
            reason,
            fingerprint: secret.fingerprint(),
            sealed: sealed.collect::<Result<BTreeMap<_, _>>>()?,
            canary: self.args.canary.clone(),
        };
        let _begun: FleetCredential = self.server.post(path::CREDENTIAL_ROTATE, &request).await?;
        Ok(())
    }

    async fn advance(&self, to: Phase) -> Result<FleetCredential> {
        let rotation = rotation_of(&self.look().await?)?.rotation;
        let request = AdvanceRequest {
            name: self.name().to_owned(),
            rotation,
            to,
            without_away: self.args.without_away,
        };
        self.server.post(path::CREDENTIAL_ADVANCE, &request).await
    }

    async fn go_on(&self) -> Result<Exit> {
        loop {
            let found = self.look().await?;
            match rotation_of(&found)?.phase {
                Phase::Staged => {
                    let found = self.wait(Phase::Staged).await?;
                    self.step("staged", &counted(&found, Phase::Staged))?;
                    self.probed().await?;
                    drop(self.advance(Phase::Canary).await?);
                }
                Phase::Canary => {
                    self.tried().await?;
                    drop(self.advance(Phase::Current).await?);
                }
                Phase::Current => {
                    let found = self.wait(Phase::Current).await?;
                    self.step("current", &counted(&found, Phase::Current))?;
                    return self.end(&found);
                }
                Phase::Revoked => {
                    self.step("revoked", "the service refuses the value before: the rotation is over")?;
                    return self.document(&found);
                }
                Phase::Aborted => {
                    return Err(Failure::new(Exit::Findings, "the rotation was aborted: begin a new one").into());
                }
            }
        }
    }

    /// Waits until every host is so far, and gives the rotation up where one cannot be.
    async fn wait(&self, phase: Phase) -> Result<FleetCredential> {
        let until = Instant::now() + self.args.wait;
        loop {
            let found = self.look().await?;
            let failed: Vec<String> = found
                .hosts
                .iter()
                .filter(|host| !host.error.is_empty())
                .map(|host| format!("{}: {}", host.host, printable(&host.error)))
                .collect();
            if !failed.is_empty() {
                let message = format!("the value was not taken on {}", failed.join("; "));
                return Err(self.give_up(phase, message).await);
            }
            let behind: Vec<&FleetHost> = found.hosts.iter().filter(|host| self.is_behind(host, phase)).collect();
            if behind.is_empty() {
                return Ok(found);
            }
            if Instant::now() >= until {
                let names = behind.iter().map(|host| shown(host)).collect::<Vec<_>>().join(", ");
                let message = format!("{}, and not {phase} yet on {names}", counted(&found, phase));
                let hint = "go on by `--resume` when they are back, or without them by `--resume --without-away`";
                return Err(Failure::new(Exit::Unreachable, message).hint(hint).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_behind(&self, host: &FleetHost, phase: Phase) -> bool {
        let expected = host.has_value && !host.quarantined && (host.connected || !self.args.without_away);
        expected && host.phase < Some(phase)
    }

    /// Waits until the service took the new value, where it can be asked.
    async fn probed(&self) -> Result<()> {
        let until = Instant::now() + self.args.wait;
        loop {
            let found = self.look().await?;
            let Some(probe) = &found.probe else {
                let why = if found.injection == "url" {
                    "not: whatever is sent to a webhook, people are told"
                } else {
                    "not: the mesh file says no `probe` for it"
                };
                return self.step("probed", why);
            };
            let told = &rotation_of(&found)?.probe;
            match told.new {
                Some(status @ 200..=299) => return self.step("probed", &format!("{probe} answered {status}")),
                Some(UNAUTHORIZED) => {
                    let message = format!("the service refuses the new value: {probe} answered {UNAUTHORIZED}");
                    return Err(self.give_up(Phase::Staged, message).await);
                }
                Some(_) | None if Instant::now() >= until => {
                    let answered = told.new.map(|status| format!("answered {status}"));
                    let why = answered.unwrap_or_else(|| printable(&told.error));
                    let message = format!("no probe went well: {probe}: {why}");
                    return Err(self.give_up(Phase::Staged, message).await);
                }
                Some(_) | None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits for a call of the canary.
    async fn tried(&self) -> Result<()> {
        drop(self.wait(Phase::Staged).await?);
        let until = Instant::now() + self.args.canary_for;
        loop {
            let found = self.look().await?;
            let rotation = rotation_of(&found)?;
            let Some(canary) = &rotation.canary else {
                return Ok(());
            };
            let (bot, host) = (&canary.bot, &canary.host);
            if canary.refused > 0 {
                let message = format!(
                    "{} of {} calls of {bot} with the new value were refused by the service",
                    canary.refused, canary.calls
                );
                return Err(self.give_up(Phase::Canary, message).await);
            }
            if canary.calls > 0 {
                let calls = if canary.calls == 1 {
                    "1 call".to_owned()
                } else {
                    format!("{} calls", canary.calls)
                };
                return self.step("canary", &format!("{bot} on {host}: {calls}, none refused"));
            }
            if Instant::now() >= until {
                return self.step(
                    "canary",
                    &format!(
                        "{bot} on {host} made no call within {}s",
                        self.args.canary_for.as_secs()
                    ),
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Gives the new value up before every bot has it; the operator reads why.
    async fn give_up(&self, phase: Phase, message: String) -> anyhow::Error {
        if phase >= Phase::Current {
            let hint = "every bot has the new value already: put it right on that host, then `--resume`";
            return Failure::new(Exit::Findings, message).hint(hint).into();
        }
        match self.advance(Phase::Aborted).await {
            Ok(_aborted) => Failure::new(Exit::Findings, message)
                .hint("the rotation was aborted: every bot goes on with the value in use")
                .into(),
            Err(error) => error.context(message),
        }
    }

    /// What is left to do is the operator's, at the service.
    fn end(&self, found: &FleetCredential) -> Result<Exit> {
        let name = self.name();
        let what = if found.probe.is_some() {
            format!(
                "revoke the value before at the service: a host asks with it until it reads {UNAUTHORIZED}, and then all delete it (`botmesh secret rotate {name} --status`)"
            )
        } else {
            format!("revoke the value before at the service, then say so: `botmesh secret rotate {name} --revoked`")
        };
        self.step("next", &what)?;
        self.document(found)
    }

    fn step(&self, step: &str, what: &str) -> Result<()> {
        if self.screen.is_table() {
            self.screen.line(format!("{} {what}", green(&format!("{step:<9}"))))?;
        }
        Ok(())
    }

    fn document(&self, found: &FleetCredential) -> Result<Exit> {
        if !self.screen.is_table() {
            self.screen.document(found)?;
        }
        Ok(Exit::Fine)
    }

    fn show(&self, found: &FleetCredential) -> Result<Exit> {
        if !self.screen.is_table() {
            return self.document(found);
        }
        let Some(rotation) = &found.rotation else {
            self.screen.note(format!("{} was not rotated yet", self.name()));
            return Ok(Exit::Fine);
        };
        self.screen.line(summary(found, rotation))?;
        for host in &found.hosts {
            self.screen.line(format!("  {}", shown(host)))?;
        }
        Ok(Exit::Fine)
    }
}

fn summary(found: &FleetCredential, rotation: &RotationStatus) -> String {
    let state = match rotation.phase {
        Phase::Current => "awaiting-revoke",
        Phase::Staged | Phase::Canary | Phase::Revoked | Phase::Aborted => rotation.phase.as_str(),
    };
    let mut line = format!(
        "{}: {state} since {} (fingerprint {}), by {}: {}",
        found.name,
        rotation.changed,
        rotation.fingerprint,
        printable(&rotation.actor),
        printable(&rotation.reason)
    );
    for (which, status) in [("new", rotation.probe.new), ("old", rotation.probe.old)] {
        if let Some(status) = status {
            line.push_str(&format!("\n  the probe with the {which} value was answered {status}"));
        }
    }
    if !rotation.probe.error.is_empty() {
        line.push_str(&format!(
            "\n  the newest probe got no answer: {}",
            printable(&rotation.probe.error)
        ));
    }
    line
}

fn shown(host: &FleetHost) -> String {
    let away = if host.connected { "" } else { " (away)" };
    let phase = match (host.has_value, host.quarantined, host.phase) {
        (_, true, _) => "quarantined, is told nothing".to_owned(),
        (false, ..) => "joined later, has no value: `botmesh secret put` there".to_owned(),
        (true, _, Some(phase)) => phase.to_string(),
        (true, _, None) if !host.error.is_empty() => format!("failed: {}", printable(&host.error)),
        (true, _, None) => "not heard yet".to_owned(),
    };
    format!("{}{away}: {phase}", host.host)
}

/// How many hosts are so far.
fn counted(found: &FleetCredential, phase: Phase) -> String {
    let all: Vec<&FleetHost> = found.hosts.iter().filter(|host| host.has_value).collect();
    let done = all.iter().filter(|host| host.phase >= Some(phase)).count();
    format!("{done} of {} hosts", all.len())
}

fn rotation_of(found: &FleetCredential) -> Result<&RotationStatus> {
    found
        .rotation
        .as_ref()
        .ok_or_else(|| Failure::new(Exit::Findings, format!("no rotation of {} has begun", found.name)).into())
}

fn sealed(secret: &Secret, host: &FleetHost) -> Result<(spiffe::id::HostName, String)> {
    let recipient = host.recipient.as_deref().and_then(Recipient::parse);
    let recipient = recipient.ok_or_else(|| {
        let message = format!(
            "{} has not said to whom values are sealed for it: it was not connected since the CA began, or its version takes none",
            host.host
        );
        Failure::new(Exit::Unreachable, message).hint("wait until it is back, or evict it: `botmesh host list`")
    })?;
    let sealed = secret.seal_to(&recipient).map_err(|error| anyhow!(error))?;
    Ok((host.host.clone(), STANDARD.encode(sealed)))
}
