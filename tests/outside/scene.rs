//! A host with a file of names, and servers outside of the mesh on loopback addresses of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

use crate::spine::{CHECKOUT, REPORT};
use crate::support::{Caller, Host, Mesh, PYTHON, Process, Setup, as_user, eventually, free_port};

pub(crate) struct Scene {
    pub(crate) mesh: Mesh,
    /// Of the servers, so that each has the ports of its scheme.
    pub(crate) address: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
    /// Where the bots may run.
    places: String,
}

/// A server outside.
pub(crate) struct Server {
    process: Process,
}

impl Server {
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// How many lines it has said that begin so.
    pub(crate) fn said(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.starts_with(words)).count()
    }
}

impl Scene {
    /// Starts the mesh on one host, with these listeners.
    pub(crate) fn new(listeners: &str) -> Self {
        Self::with_clock(listeners, None)
    }

    /// The same, with this configuration of the proxy beside the ordinary one.
    pub(crate) fn with_config(listeners: &str, config: &str) -> Self {
        Self::with(&["web-1"], (listeners, config), None, "")
    }

    /// The same on these hosts, on each of which every bot may run.
    pub(crate) fn on_hosts(hosts: &[&str], config: &str) -> Self {
        Self::with(hosts, ("", config), None, "")
    }

    pub(crate) fn with_clock(listeners: &str, clock: Option<PathBuf>) -> Self {
        Self::with(&["web-1"], (listeners, ""), clock, "")
    }

    /// The same, with these lines in the configuration of the CA.
    pub(crate) fn with_ca(ca: &str, clock: Option<PathBuf>) -> Self {
        Self::with(&["web-1"], ("", ""), clock, ca)
    }

    fn with(hosts: &[&str], (listeners, config): (&str, &str), clock: Option<PathBuf>, ca: &str) -> Self {
        let places = hosts.join(", ");
        let dir = tempfile::Builder::new().prefix("bmout").tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let names = dir.path().join("hosts");
        fs::write(&names, "").expect("hosts");
        let mesh = Mesh::start(&Setup {
            hosts,
            extra: &format!(
                "outside: {{hosts_file: {}}}\nlisteners: [{listeners}]\n{config}",
                names.display()
            ),
            clock,
            ca,
            ..Setup::default()
        });
        let [high, low] = free_port().to_be_bytes();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "outside");
        let scene = Self {
            mesh,
            address: format!("127.99.{high}.{low}"),
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"),
            dir,
            places,
        };
        fs::write(scene.ca_file(), scene.issuer.pem()).expect("the authority");
        scene
    }

    /// The authority of this scene's servers, in a file.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Says where names are.
    pub(crate) fn names(&self, lines: &[(&str, &str)]) {
        let text: String = lines.iter().map(|(at, names)| format!("{at} {names}\n")).collect();
        fs::write(self.dir.path().join("hosts"), text).expect("hosts");
    }

    pub(crate) fn plain(&self, address: &str, port: u16) -> Server {
        self.server(&[address, &port.to_string()])
    }

    /// Serves TLS with a certificate of these names.
    pub(crate) fn tls(&self, port: u16, names: &[&str]) -> Server {
        self.tls_until(port, names, 2100)
    }

    /// The same with a certificate that ends with that year.
    pub(crate) fn tls_until(&self, port: u16, names: &[&str], year: i32) -> Server {
        let file = self.certificate_until(port, names, year);
        self.server(&[&self.address, &port.to_string(), &file])
    }

    /// The file of a certificate of these names and its key.
    pub(crate) fn certificate(&self, port: u16, names: &[&str]) -> String {
        self.certificate_until(port, names, 2100)
    }

    fn certificate_until(&self, port: u16, names: &[&str], year: i32) -> String {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = self.dir.path().join(format!("server-{port}.pem"));
        fs::write(&file, format!("{}{}", certificate.pem(), key.serialize_pem())).expect("pem");
        file.display().to_string()
    }

    fn server(&self, words: &[&str]) -> Server {
        let mut command = as_user(PYTHON, nix::unistd::geteuid().as_raw());
        command.args(["-c", include_str!("../support/outside.py")]).args(words);
        let log = self.dir.path().join(format!("outside-{}.log", words[..2].join("-")));
        let process = Process::spawn(command, log);
        eventually("the server outside to listen", || {
            process.log().starts_with("ready").then_some(())
        });
        Server { process }
    }

    /// Applies these rules, and what is said of destinations: `"https://a.b": {addresses: [10.0.0.1]}`, where `HERE` is the
    /// address of the servers and `CA` their authority.
    pub(crate) fn apply(&self, allow: &[&str], destinations: &[&str], more: &str) {
        self.mesh.apply(&self.mesh_file(allow, destinations, more));
    }

    pub(crate) fn mesh_file(&self, allow: &[&str], destinations: &[&str], more: &str) -> String {
        let pem = serde_json::to_string(&self.issuer.pem()).expect("a string");
        let allow: String = allow.iter().map(|rule| format!("  - {{{rule}}}\n")).collect();
        let destinations: String = destinations.iter().map(|said| format!("  {said}\n")).collect();
        let destinations = destinations.replace("HERE", &self.address).replace("CA", &pem);
        let places = &self.places;
        let section = |name: &str, text: &str| {
            if text.is_empty() {
                String::new()
            } else {
                format!("{name}:\n{text}")
            }
        };
        format!(
            "version: 1
trust_domain: acme.internal
bots:
  prod/checkout: {{owner: shop@acme.internal, hosts: [{places}], attest: {{uid: {CHECKOUT}}}}}
  prod/report: {{owner: shop@acme.internal, hosts: [{places}], attest: {{uid: {REPORT}}}}}
{}{}{more}",
            section("allow", &allow),
            section("destinations", &destinations),
        )
    }

    pub(crate) fn host(&self) -> &Host {
        self.mesh.host("web-1")
    }

    /// `prod/checkout`, at the Unix socket.
    pub(crate) fn checkout(&self) -> Caller {
        Caller::new(CHECKOUT, &self.host().bot_socket())
    }

    /// `prod/report`, at the Unix socket.
    pub(crate) fn report(&self) -> Caller {
        Caller::new(REPORT, &self.host().bot_socket())
    }

    /// Where a listener of the host is that leads there.
    pub(crate) fn listener(&self, to: &str) -> String {
        let log = self.host().process.log();
        let at = log.find(&format!(" to {to}")).expect("the proxy says where it listens");
        let start = log[..at].rfind("127.0.0.1:").expect("an address");
        log[start..at].to_owned()
    }

    /// The ends of calls that ended so.
    pub(crate) fn ended(&self, outcome: &str) -> Vec<Value> {
        let mut ends = self.host().query("kind=end");
        ends.retain(|end| end["outcome"] == outcome);
        ends
    }

    /// The end of a call, once it is there.
    pub(crate) fn end_of(&self, call: &Value) -> Value {
        eventually("the end of the call", || {
            let ends = self.host().query("kind=end");
            ends.into_iter().find(|end| end["id"] == call["id"])
        })
    }
}
