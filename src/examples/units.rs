//! The units start what the command line has, and let it write where its configuration says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::proxy::config::Operator;
use clap::Parser as _;

use super::deploy;
use crate::args::{Audit, Ca, Cli, Command, Proxy};
use crate::cli::{ca, proxy};

/// What every server of ours does without, whatever it is.
const HARDENED: [(&str, &str); 14] = [
    ("NoNewPrivileges", "yes"),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("PrivateDevices", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("LimitCORE", "0"),
];

/// The `[Service]` section of a unit; a key that stands twice keeps both values.
struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(deploy("systemd").join(name)).unwrap();
        let (_, service) = text.split_once("[Service]\n").unwrap();
        let (service, _) = service.split_once("\n[").unwrap();
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in service
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Self(keys)
    }

    fn one(&self, key: &str) -> &str {
        let values = self.0.get(key).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(values.len(), 1, "{key}: {values:?}");
        &values[0]
    }

    /// The command, as the command line's own parser reads it.
    fn command(&self) -> Command {
        let line = self.one("ExecStart");
        assert!(line.starts_with("/usr/local/bin/botmesh "), "{line}");
        Cli::try_parse_from(line.split_whitespace())
            .unwrap_or_else(|error| panic!("{line}: {error}"))
            .command
    }

    /// Whether a server of this unit could make or write a path.
    fn writes(&self, path: &Path) -> bool {
        let state = self.0.get("StateDirectory").into_iter().flatten();
        let state = state.map(|folder| Path::new("/var/lib").join(folder));
        let more = self.one("ReadWritePaths").split_whitespace().map(PathBuf::from);
        more.chain(state).any(|folder| path.starts_with(folder))
    }
}

/// The example that is installed where the unit looks for it.
fn example(config: &Path) -> PathBuf {
    let name = config.strip_prefix("/etc/botmesh").unwrap();
    deploy(name.to_str().unwrap())
}

#[test]
fn the_unit_of_the_ca_starts_the_ca_of_the_example_and_lets_it_write_where_it_must() {
    let unit = Unit::read("botmesh-ca.service");
    let Command::Ca(Ca::Run(args)) = unit.command() else {
        panic!("it runs the CA")
    };
    let settings = ca::settings(&example(&args.config.config)).unwrap();
    let ledger = settings.ledger_dir();
    for path in [
        &settings.state_dir,
        &settings.database,
        &settings.key_dir,
        &settings.admin_socket,
        &ledger,
    ] {
        assert!(unit.writes(path), "{} is read-only in the unit", path.display());
    }
    assert_eq!(unit.one("User"), "botmesh-ca");
    assert_eq!(unit.one("StateDirectoryMode"), "0700");
    assert_eq!(unit.one("CapabilityBoundingSet"), "", "the CA needs no capability");
    let link = std::fs::read_to_string(deploy("tmpfiles.d/botmesh-ca.conf")).unwrap();
    let target = settings.admin_socket.strip_prefix("/run/botmesh").unwrap();
    assert!(
        link.contains(&format!("/run/botmesh/ca.sock - - - - {}", target.display())),
        "{link}"
    );
}

#[test]
fn the_unit_of_the_proxy_starts_the_proxy_of_the_example_and_lets_it_write_where_it_must() {
    let unit = Unit::read("botmesh-proxy.service");
    let Command::Proxy(Proxy::Run(args)) = unit.command() else {
        panic!("it runs the proxy")
    };
    let settings = proxy::settings(&example(&args.config.config)).unwrap();
    for path in [
        &settings.state_dir,
        &settings.ledger_dir,
        &settings.bots_socket,
        &settings.admin_socket,
        &settings.token_file,
    ] {
        assert!(unit.writes(path), "{} is read-only in the unit", path.display());
    }
    let mut capabilities: Vec<&str> = unit.one("CapabilityBoundingSet").split_whitespace().collect();
    capabilities.sort_unstable();
    let used = [
        "CAP_CHOWN",
        "CAP_DAC_READ_SEARCH",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_PTRACE",
    ];
    assert_eq!(capabilities, used, "what is not used is not there");
    assert_eq!(
        unit.one("KillMode"),
        "mixed",
        "the helper answers until the calls under way have ended"
    );
    let script = std::fs::read_to_string(deploy("install.sh")).unwrap();
    let Operator::Name(user) = &settings.user else {
        panic!("the example names a user")
    };
    assert!(script.contains(&format!("    user {user}\n")), "nobody makes {user}");
    assert!(unit.one("RestrictAddressFamilies").contains("AF_NETLINK"), "sock_diag");
}

#[test]
fn the_unit_of_the_export_sees_the_ledger_of_the_example_and_nothing_else_of_the_proxy() {
    let unit = Unit::read("botmesh-export.service");
    let Command::Audit(Audit::Export(args)) = unit.command() else {
        panic!("it exports")
    };
    let settings = proxy::settings(&deploy("proxy.yaml")).unwrap();
    let ledger = settings.ledger_dir.to_str().unwrap();
    assert_eq!(args.dir.as_deref(), Some(settings.ledger_dir.as_path()));
    assert_eq!(unit.one("BindReadOnlyPaths"), ledger);
    let hidden = unit.one("TemporaryFileSystem").strip_suffix(":ro").unwrap();
    assert!(settings.state_dir.starts_with(hidden), "the keys of bots are in sight");
    let cursor = args.cursor.unwrap();
    let state = Path::new("/var/lib").join(unit.one("StateDirectory"));
    assert!(args.follow && cursor.starts_with(&state), "{}", cursor.display());
    assert_eq!(unit.one("CapabilityBoundingSet"), "");
}

#[test]
fn every_unit_is_hardened() {
    for name in ["botmesh-ca.service", "botmesh-proxy.service", "botmesh-export.service"] {
        let unit = Unit::read(name);
        for (key, value) in HARDENED {
            assert_eq!(unit.one(key), value, "{name}: {key}");
        }
        assert!(
            unit.0["SystemCallFilter"].contains(&"@system-service".to_owned()),
            "{name}"
        );
    }
}

#[test]
fn the_install_script_installs_every_unit_and_makes_the_user_that_one_names() {
    let script = std::fs::read_to_string(deploy("install.sh")).unwrap();
    for entry in std::fs::read_dir(deploy("systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(script.contains(&format!("unit {name}\n")), "{name}");
        if !name.ends_with(".service") {
            continue;
        }
        let user = Unit::read(&name).one("User").to_owned();
        let made = script.contains(&format!("    user {user}\n"));
        assert!(user == "root" || made, "{name}: nobody makes {user}");
    }
    for name in ["ca.yaml", "proxy.yaml"] {
        assert!(script.contains(&format!("config {name}\n")), "{name}");
    }
}

/// A proxy refuses a passed socket that no setting says, so the unit and the example must say the same.
#[test]
fn the_socket_unit_holds_every_address_of_the_example_and_no_other() {
    let settings = proxy::settings(&deploy("proxy.yaml")).unwrap();
    let mut addresses = vec![
        settings.bots_listen.to_string(),
        settings.bots_socket.display().to_string(),
        settings.mesh_listen.to_string(),
        settings.admin_socket.display().to_string(),
        settings.metrics_listen.to_string(),
    ];
    let more = settings.listeners.iter().map(|listener| listener.listen.to_string());
    addresses.extend(more.map(|address| address.replacen("unix:", "", 1)));
    addresses.sort();
    let text = std::fs::read_to_string(deploy("systemd/botmesh-proxy.socket")).unwrap();
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    let mut held: Vec<&str> = lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    held.sort_unstable();
    assert_eq!(held, addresses);
    for line in ["Accept=no", "SocketMode=0666", "PassCredentials=yes"] {
        assert!(lines().any(|l| l == line), "{line}");
    }
    assert!(!text.contains("ReusePort"), "two processes could share a port then");
    let service = Unit::read("botmesh-proxy.service");
    assert_eq!(service.one("Sockets"), "botmesh-proxy.socket");
    assert_eq!((service.one("Type"), service.one("NotifyAccess")), ("notify", "main"));
}

/// The commands of the operator's page are typed as they stand there.
#[test]
fn every_botmesh_command_of_the_readme_is_one() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut seen = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("    ")) {
        let line = line.split(" #").next().unwrap_or_default();
        for command in line.split("&&").flat_map(|part| part.split('|')) {
            let Some((before, after)) = command.split_once("botmesh ") else {
                continue;
            };
            if !before.chars().last().is_none_or(char::is_whitespace) {
                continue;
            }
            seen += 1;
            parses(&format!("botmesh {after}"));
        }
    }
    assert!(seen >= 15, "only {seen} commands were found");
}

/// Words in single quotes hold spaces; `PID` stands for the number that a reader types.
fn parses(command: &str) {
    let mut words: Vec<String> = Vec::new();
    for (number, part) in command.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(
                part.split_whitespace()
                    .take_while(|word| *word != ">")
                    .map(|word| if word == "PID" { "1" } else { word }.to_owned()),
            );
        }
    }
    Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{command}: {error}"));
}
