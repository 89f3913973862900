//! `up`: the CA and the proxy of one host under one supervisor, and the mesh file applied again whenever it changes.

mod mesh_file;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ca_api::admin::{CaStatus, HostList, path};
use ca_api::proxy_admin::ProxyStatus;
use spiffe::id::HostName;

use self::mesh_file::MeshFile;
use crate::args::Up;
use crate::children::{Kept, Step};
use crate::cli::site::{self, CaSite, Ports, ProxySettings, ProxySite};
use crate::cli::{Context, host};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{bold, green, shell};
use crate::signals::Stop;

/// Runs it until a signal.
pub(crate) async fn run(args: Up, context: &Context) -> Result<Exit> {
    let mut stop = Stop::watch()?;
    let dir = site::absolute(&args.dir.clone().unwrap_or_else(|| PathBuf::from(".botmesh")))?;
    let mesh = site::absolute(&args.mesh)?;
    let place = Place::new(&args, dir)?;
    let mut file = MeshFile::open(mesh, &place.dir.join("applied.json"), &place.ca)?;
    let trust_domain = file.trust_domain(context)?;

    std::fs::create_dir_all(&place.dir).with_context(|| format!("create {}", place.dir.display()))?;
    if !place.ca.config.exists() {
        place
            .ca
            .write_config(&trust_domain, &place.dir.join("ca"), Ports::Documented)?;
    }
    super::ca::init_if_new(&place.ca.config, context).await?;
    // Both arms are complete or the process ends: nothing is lost by a signal while starting, children end with their stdin.
    let running = tokio::select! {
        running = start(&place, &mut file, context) => running?,
        name = stop.wait() => return Err(Failure::new(Exit::Findings, format!("{name} while starting")).into()),
    };
    supervise(running, &mut file, &mut stop, context).await
}

/// Where this host's files are.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    ca: CaSite,
    proxy: ProxySite,
}

impl Place {
    fn new(args: &Up, dir: PathBuf) -> Result<Self> {
        let host = match &args.host {
            Some(host) => host.clone(),
            None => configured_host(&dir)?.map_or_else(machine_name, Ok)?,
        };
        Ok(Self {
            ca: CaSite::in_folder(&dir),
            proxy: ProxySite::in_folder(&host, &dir),
            dir,
        })
    }
}

/// The host of a proxy.yaml that is there already.
fn configured_host(dir: &std::path::Path) -> Result<Option<HostName>> {
    let file = dir.join("proxy.yaml");
    if !file.exists() {
        return Ok(None);
    }
    Ok(Some(config::load::<::proxy::config::Config>(&file)?.host))
}

/// The first label of the machine's name, where it is a host name of the mesh.
fn machine_name() -> Result<HostName> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("read the machine's name")?;
    let label = name.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    HostName::parse(&label).map_err(|error| {
        Failure::usage(format!("the machine's name `{label}` is no host name: {error}"))
            .hint("say --host NAME")
            .into()
    })
}

/// Both servers, running.
#[derive(Debug)]
struct Running {
    ca: Kept,
    proxy: Kept,
}

async fn start(place: &Place, file: &mut MeshFile, context: &Context) -> Result<Running> {
    let extra = passed_on(context);
    let program = place.ca.program(&extra);
    let mut child = program.start()?;
    let ca_status = site::ca_up(&place.ca.server(), &mut child).await?;
    let ca = Kept::new(program, child);
    file.apply(context).await?;

    if !place.proxy.config.exists() {
        let settings = ProxySettings {
            trust_domain: &ca_status.trust_domain,
            ca: ca_status
                .node_api
                .parse()
                .with_context(|| format!("read the CA's address {}", ca_status.node_api))?,
            state: &place.dir.join("proxy"),
            ports: Ports::Documented,
            more: "",
        };
        place.proxy.write_config(&settings)?;
    }
    token_if_needed(place, context).await?;
    let program = place.proxy.program(&extra);
    let mut child = program.start()?;
    let proxy_status = site::proxy_ready(&place.proxy.server(), &mut child).await?;
    place.proxy.forget_token()?;
    greet(place, &ca_status, &proxy_status, context)?;
    Ok(Running {
        ca,
        proxy: Kept::new(program, child),
    })
}

/// A host that has joined renews by itself; one that has not needs a token, which it reads once.
async fn token_if_needed(place: &Place, context: &Context) -> Result<()> {
    let server = place.ca.server();
    let hosts: HostList = server.get(path::HOSTS).await?;
    let name = &place.proxy.host;
    if hosts
        .hosts
        .iter()
        .any(|host| host.host == *name && host.state == "joined")
    {
        return Ok(());
    }
    let token = host::issue_token(&server, name).await?;
    place.proxy.write_token(&token.token)?;
    context.screen.note(format!("{name} joins with a token"));
    Ok(())
}

/// Arguments that the servers share with us.
pub(crate) fn passed_on(context: &Context) -> Vec<String> {
    let mut extra = vec!["--color".to_owned(), "never".to_owned()];
    if context.global.quiet {
        extra.push("--quiet".to_owned());
    }
    extra.extend((0..context.global.verbose).map(|_| "-v".to_owned()));
    #[cfg(feature = "test-clock")]
    if let Some(clock) = &context.global.clock {
        extra.extend(["--clock".to_owned(), format!("unix:{}", clock.display())]);
    }
    extra
}

fn greet(place: &Place, ca: &CaStatus, proxy: &ProxyStatus, context: &Context) -> Result<()> {
    let screen = &context.screen;
    if !screen.is_table() {
        screen.document(&serde_json::json!({ "ca": ca, "proxy": proxy }))?;
        return Ok(());
    }
    let program = shell(&config::program_name());
    screen.line(format!(
        "{} CA       {}, node API {}",
        green("ok"),
        ca.trust_domain,
        ca.node_api
    ))?;
    screen.line(format!("{} proxy    {}, ready", green("ok"), proxy.host))?;
    for (name, address) in &proxy.listeners {
        screen.line(format!("     {name:<12} {address}"))?;
    }
    if proxy.same_user {
        screen.line("   same-user mode: identities among processes of one user are a convenience, not a boundary (run as root for one)")?;
    }
    for note in proxy.notes.iter().chain(&ca.notes) {
        screen.line(format!("   note: {}", crate::output::printable(note)))?;
    }
    let socket = shell(&place.proxy.bot_socket.display().to_string());
    let dir = shell(&place.dir.display().to_string());
    screen.line(format!(
        "{}   curl --unix-socket {socket} http://BOT.mesh/",
        bold("Bots")
    ))?;
    screen.line(format!("{}    {program} status --server unix:{dir}", bold("You")))?;
    screen.line(format!("       {program} whois PID --server unix:{dir}"))?;
    screen.line(format!("       {program} audit verify {}", shell(&proxy.ledger)))?;
    screen.line("Ctrl-C stops both; state is kept.")?;
    Ok(())
}

async fn supervise(mut running: Running, file: &mut MeshFile, stop: &mut Stop, context: &Context) -> Result<Exit> {
    let name = loop {
        // Each arm only waits for something to happen; what is lost midway is the wait, never the event.
        tokio::select! {
            name = stop.wait() => break name,
            step = running.ca.step() => tell(running.ca.name(), &step?, context),
            step = running.proxy.step() => tell(running.proxy.name(), &step?, context),
            () = file.changed() => file.apply(context).await?,
        }
    };
    context.screen.note(format!("{name}: stopping"));
    // The proxy first: its last events and receipts still reach the CA.
    running.proxy.stop().await?;
    running.ca.stop().await?;
    Ok(Exit::Fine)
}

fn tell(name: &str, step: &Step, context: &Context) {
    match step {
        Step::Ended(status, wait) => {
            context.screen.warn(format!(
                "{name} ended ({status}); it is started again in {} ms",
                wait.as_millis()
            ));
        }
        Step::Started => context.screen.warn(format!("{name} was started again")),
    }
}
