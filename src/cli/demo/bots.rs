//! The demo's bots as processes: those that answer, and those that call line by line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdout;
use tokio::time::timeout;

use crate::children::{Child, Program, program};
use crate::cli::demo::stage::Site;
use crate::cli::demo_bot::{Answered, Call};

/// How long a sample bot may take to start or to answer one line.
const BOT_TIMEOUT: Duration = Duration::from_secs(25);

/// The arguments that start a sample bot: under `run --as` when it is somebody.
fn bot_program(site: &Site, bot: Option<&str>, args: &[&str]) -> Result<Program> {
    let mut all: Vec<OsString> = Vec::new();
    if let Some(bot) = bot {
        let server = format!("unix:{}", site.files.socket.display());
        all.extend(["--quiet", "run", "--as", bot, "--server", &server, "--"].map(Into::into));
        all.push(program()?.into_os_string());
    }
    all.push("demo-bot".into());
    all.extend(args.iter().map(Into::into));
    let name = bot.unwrap_or("nobody");
    Ok(Program::new(name, all).heard().log_to(&site.files.dir.join("bots.log")))
}

/// Starts a process that answers at an address, as a bot or as nobody.
pub(crate) async fn callee(site: &Site, bot: Option<&str>, listen: &str) -> Result<Child> {
    let mut child = bot_program(site, bot, &["serve", "--listen", listen])?.start()?;
    let stdout = child.stdout.take().context("read what the bot prints")?;
    let mut reader = BufReader::new(stdout);
    let line = read_line(&mut reader, &child.name, child.log.as_deref()).await?;
    if !line.starts_with("listening ") {
        return Err(anyhow!("{} said `{}` and did not listen", child.name, line.trim()));
    }
    Ok(child)
}

async fn read_line(reader: &mut BufReader<ChildStdout>, name: &str, log: Option<&Path>) -> Result<String> {
    let mut line = String::new();
    let read = timeout(BOT_TIMEOUT, reader.read_line(&mut line)).await;
    let read = read
        .with_context(|| format!("wait for {name}"))?
        .with_context(|| format!("read from {name}"))?;
    if read == 0 {
        let said = log
            .and_then(|log| std::fs::read_to_string(log).ok())
            .unwrap_or_default();
        return Err(anyhow!("{name} ended early: {}", said.trim()));
    }
    Ok(line)
}

/// A sample bot that calls: a process that makes one call for each line it is sent.
#[derive(Debug)]
pub(crate) struct Caller {
    child: Child,
    reader: BufReader<ChildStdout>,
}

impl Caller {
    /// Starts one on a host, as a bot or as nobody.
    pub(crate) fn start(site: &Site, bot: Option<&str>) -> Result<Self> {
        let socket = site.files.bot_socket.display().to_string();
        let mut child = bot_program(site, bot, &["call", "--socket", &socket])?.start()?;
        let stdout = child.stdout.take().context("read what the bot prints")?;
        Ok(Self {
            child,
            reader: BufReader::new(stdout),
        })
    }

    /// Makes one call.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Answered> {
        let mut line = serde_json::to_string(call)?;
        line.push('\n');
        let stdin = self.child.stdin.as_mut().context("write to the bot")?;
        stdin
            .write_all(line.as_bytes())
            .await
            .with_context(|| format!("write to {}", self.child.name))?;
        let answer = read_line(&mut self.reader, &self.child.name, self.child.log.as_deref()).await?;
        serde_json::from_str(&answer).with_context(|| format!("read the answer of {}", self.child.name))
    }

    /// Ends it.
    pub(crate) async fn stop(self) -> Result<()> {
        self.child.stop().await
    }
}

/// A call of the demo, by the bot's name.
pub(crate) fn call(method: &str, to: &str, path: &str, headers: &[(&str, &str)]) -> Call {
    // demo/orders is orders.demo.mesh.
    let host: Vec<&str> = to.rsplit('/').collect();
    Call {
        method: method.to_owned(),
        url: format!("http://{}.mesh{path}", host.join(".")),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bots_name_becomes_its_mesh_name() {
        assert_eq!(
            call("GET", "demo/orders", "/orders/17", &[]).url,
            "http://orders.demo.mesh/orders/17"
        );
    }
}
