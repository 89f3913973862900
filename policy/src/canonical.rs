//! A mesh as JSON: one spelling for each mesh, so that a hash names it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::audit_only::AuditOnly;
use crate::credential::{Credential, CredentialName, Injection};
use crate::database::DatabaseMatch;
use crate::destination::Destination;
use crate::exchange::OAuth;
use crate::explain::Verdict;
use crate::federate::{Federate, SvidExchange, SvidGrant, TokenType};
use crate::limit::{Limit, Rate};
use crate::mesh::{Bot, Mesh, Serve, ServeKind, Target};
use crate::rule::{Effect, HttpMatch, Rule, RuleId};
use crate::tests_of_mesh::MeshTest;
use crate::upgrade::Protocol;

/// Keys are in the order of the alphabet, here and below; absent values are left out.
#[derive(Serialize)]
struct File<'m> {
    allow: Vec<RuleOut<'m>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit_only: Vec<AuditOut<'m>>,
    bots: BTreeMap<&'m str, BotOut<'m>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    credentials: BTreeMap<&'m str, Value>,
    deny: Vec<RuleOut<'m>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    destinations: BTreeMap<String, DestinationOut<'m>>,
    groups: BTreeMap<&'m str, Vec<&'m str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LimitOut<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slice: Option<&'m str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tests: Vec<TestOut<'m>>,
    trust_domain: &'m str,
    version: u8,
}

#[derive(Serialize)]
struct RuleOut<'m> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    browser: bool,
    from: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grpc: Vec<&'m str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    http: Vec<String>,
    id: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    inject: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    justify: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    postgres: Vec<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'m str>,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    tcp: &'m [u16],
    to: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    upgrade: Vec<&'m str>,
}

#[derive(Serialize)]
struct DestinationOut<'m> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_failures: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_pending: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_idle: Option<String>,
}

#[derive(Serialize)]
struct LimitOut<'m> {
    burst: u32,
    from: Vec<String>,
    id: &'m str,
    rate: Rate,
    to: Vec<String>,
}

#[derive(Serialize)]
struct AuditOut<'m> {
    reason: &'m str,
    to: Vec<String>,
    until: String,
}

#[derive(Serialize)]
struct BotOut<'m> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attest: Vec<AttestOut<'m>>,
    hosts: Vec<&'m str>,
    owner: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serve: Option<Value>,
    svid_ttl: String,
}

#[derive(Serialize)]
struct AttestOut<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_sha256: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'m str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    run_by: &'m [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    socket: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'m str>,
}

#[derive(Serialize)]
struct TestOut<'m> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'m str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
    from: &'m str,
    name: &'m str,
    to: String,
}

/// Writes a mesh.
pub(crate) fn write(mesh: &Mesh) -> String {
    let rules = |effect| {
        mesh.rules
            .iter()
            .filter(move |(_, rule)| rule.effect == effect)
            .map(rule)
            .collect()
    };
    let file = File {
        allow: rules(Effect::Allow),
        audit_only: mesh.audit_only.iter().map(audit).collect(),
        bots: mesh
            .bots
            .iter()
            .map(|(name, found)| (name.as_str(), bot(found)))
            .collect(),
        credentials: mesh
            .credentials
            .iter()
            .map(|(name, found)| (name.as_str(), credential(found)))
            .collect(),
        deny: rules(Effect::Deny),
        destinations: destinations(mesh),
        groups: mesh
            .groups
            .iter()
            .map(|(name, members)| (&**name, members.iter().map(|member| member.as_str()).collect()))
            .collect(),
        limits: mesh.limits.iter().map(limit).collect(),
        slice: mesh.slice.as_ref().map(|host| host.as_str()),
        tests: mesh.tests.iter().map(test).collect(),
        trust_domain: mesh.trust_domain.as_str(),
        version: 1,
    };
    // Writing strings and numbers to memory does not fail; if it did, the empty text would be refused by every reader.
    serde_json::to_string(&file).unwrap_or_default()
}

fn rule<'m>((id, rule): (&'m RuleId, &'m Arc<Rule>)) -> RuleOut<'m> {
    let (mut grpc, mut http) = (Vec::new(), Vec::new());
    match rule.kind {
        Some(ServeKind::Grpc) => grpc = rule.http.iter().map(HttpMatch::grpc).collect(),
        Some(ServeKind::Http | ServeKind::Tcp) | None => http = rule.http.iter().map(ToString::to_string).collect(),
    }
    RuleOut {
        browser: rule.browser,
        from: rule.from.iter().map(ToString::to_string).collect(),
        grpc,
        http,
        id: id.as_str(),
        inject: rule.inject.as_ref().map(CredentialName::as_str),
        justify: rule.justify.as_deref(),
        path: rule.hashed.then_some("hashed"),
        postgres: rule.postgres.iter().map(DatabaseMatch::as_str).collect(),
        reason: rule.reason.as_deref(),
        tcp: &rule.tcp,
        to: rule.to.iter().map(ToString::to_string).collect(),
        until: rule.until.map(|until| until.to_string()),
        upgrade: rule.upgrade.iter().map(Protocol::as_str).collect(),
    }
}

fn destinations(mesh: &Mesh) -> BTreeMap<String, DestinationOut<'_>> {
    let bots = mesh.destinations.iter();
    let bots = bots.map(|(name, found)| (name.to_string(), destination(found)));
    let outsides = mesh.outsides.iter().map(|(name, found)| {
        let out = DestinationOut {
            addresses: found.addresses.iter().map(ToString::to_string).collect(),
            ca: found.ca.as_deref(),
            ..destination(&found.waits)
        };
        (name.to_string(), out)
    });
    bots.chain(outsides).collect()
}

fn destination(destination: &Destination) -> DestinationOut<'static> {
    let millis = |wait: Option<Duration>| wait.map(|wait| format!("{}ms", wait.as_millis()));
    DestinationOut {
        addresses: Vec::new(),
        ca: None,
        connect_timeout: millis(destination.connect_timeout),
        max_failures: destination.max_failures,
        max_in_flight: destination.max_in_flight,
        max_pending: destination.max_pending,
        request_timeout: millis(destination.request_timeout),
        retries: destination.retries,
        stream_idle: millis(destination.stream_idle),
    }
}

/// The map has its keys in their order, and nothing that says what goes without saying.
fn credential(credential: &Credential) -> Value {
    let mut out = serde_json::Map::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("owner", json!(credential.owner));
    if let Some(every) = credential.rotate_every {
        put("rotate_every", json!(format!("{}h", every.as_secs() / 3600)));
    }
    if let Some(shared) = &credential.shared {
        put("shared", json!(shared));
    }
    if let Some(probe) = &credential.probe {
        put("probe", json!(probe.to_string()));
    }
    let key = credential.injection.as_str();
    match &credential.injection {
        Injection::Header { name, prefix } => {
            put(key, json!(name));
            if !prefix.is_empty() {
                put("prefix", json!(prefix));
            }
        }
        Injection::Bearer => put(key, json!(true)),
        Injection::Basic { user } => put(key, json!(user)),
        Injection::Query { name, unsafe_query } => {
            put(key, json!(name));
            put("unsafe_query", json!(unsafe_query));
        }
        Injection::Hmac(hmac) => {
            let timestamp = hmac.timestamp.iter().map(|field| ("timestamp", json!(field)));
            let others = [
                ("encoding", json!(hmac.encoding.as_str())),
                ("hash", json!(hmac.hash.as_str())),
                ("header", json!(hmac.header)),
                ("prefix", json!(hmac.prefix)),
            ];
            let all = others.into_iter().chain(timestamp);
            put(key, all.map(|(key, value)| (key.to_owned(), value)).collect());
        }
        Injection::Postgres { user, svid: false } => put(key, json!({ "user": user })),
        Injection::Postgres { user, svid: true } => put(key, json!({ "svid": true, "user": user })),
        Injection::Sigv4 { region, service } => put(key, json!({ "region": region, "service": service })),
        Injection::OAuth(oauth) => put(key, self::oauth(oauth)),
        Injection::Url(to) => put(key, json!(to.to_string())),
        Injection::GithubApp(app) => put(
            key,
            json!({ "app_id": app.app_id, "base": app.base, "installation_id": app.installation_id }),
        ),
        Injection::Federate(federate) => put(key, self::federate(federate)),
    }
    Value::Object(out)
}

fn oauth(oauth: &OAuth) -> Value {
    let always = [
        ("auth", oauth.auth.as_str().to_owned()),
        ("client_id", oauth.client_id.to_string()),
        ("grant", oauth.grant.as_str().to_owned()),
        ("token_url", oauth.token_url.to_string()),
    ];
    let maybe = [
        ("audience", &oauth.audience),
        ("resource", &oauth.resource),
        ("scope", &oauth.scope),
    ];
    let maybe = maybe
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?.to_string())));
    let all = always.into_iter().chain(maybe);
    all.map(|(key, value)| (key.to_owned(), Value::String(value))).collect()
}

fn federate(federate: &Federate) -> Value {
    let mut out = federate.exchange.as_ref().map(svid_exchange).unwrap_or_default();
    out.insert("audience".to_owned(), json!(federate.audience));
    Value::Object(out)
}

fn svid_exchange(exchange: &SvidExchange) -> serde_json::Map<String, Value> {
    let is_token_exchange = exchange.grant == SvidGrant::TokenExchange;
    let subject_token_type = is_token_exchange.then(|| exchange.subject_token_type.as_str());
    let all = [
        ("client_id", exchange.client_id.as_deref()),
        ("encoding", Some(exchange.encoding.as_str())),
        ("grant", Some(exchange.grant.as_str())),
        (
            "requested_token_type",
            exchange.requested_token_type.map(TokenType::as_str),
        ),
        ("resource", exchange.resource.as_deref()),
        ("scope", exchange.scope.as_deref()),
        ("subject_token_type", subject_token_type),
        ("token_audience", exchange.token_audience.as_deref()),
    ];
    let said = all
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
    let mut out: serde_json::Map<String, Value> = said.collect();
    out.insert("token_url".to_owned(), json!(exchange.token_url.to_string()));
    if !exchange.parameters.is_empty() {
        out.insert("parameters".to_owned(), json!(exchange.parameters));
    }
    out
}

fn limit<'m>((id, limit): (&'m RuleId, &'m Limit)) -> LimitOut<'m> {
    LimitOut {
        burst: limit.allowance.burst,
        from: limit.from.iter().map(ToString::to_string).collect(),
        id: id.as_str(),
        rate: limit.allowance.rate,
        to: limit.to.iter().map(ToString::to_string).collect(),
    }
}

fn audit(entry: &AuditOnly) -> AuditOut<'_> {
    AuditOut {
        reason: &entry.reason,
        to: entry.to.iter().map(ToString::to_string).collect(),
        until: entry.until.to_string(),
    }
}

fn bot(bot: &Bot) -> BotOut<'_> {
    let attest = bot.attest.iter().map(|set| AttestOut {
        cgroup: set.cgroup.as_deref(),
        exe: set.exe.as_deref(),
        exe_sha256: set.exe_sha256.as_deref(),
        gid: set.gid,
        group: set.group.as_deref(),
        run_by: &set.run_by,
        socket: set.socket,
        uid: set.uid,
        unit: set.unit.as_deref(),
        user: set.user.as_deref(),
    });
    BotOut {
        attest: attest.collect(),
        hosts: bot.hosts.iter().map(|host| host.as_str()).collect(),
        owner: &bot.owner,
        serve: bot.serve.as_ref().map(serve),
        svid_ttl: format!("{}s", bot.svid_ttl.as_secs()),
    }
}

fn serve(serve: &Serve) -> Value {
    let kind = serve.kind().as_str();
    match serve {
        Serve::Http(Target::Elsewhere) | Serve::Grpc(Target::Elsewhere) => json!(kind),
        Serve::Http(Target::Endpoints(endpoints)) | Serve::Grpc(Target::Endpoints(endpoints)) => {
            let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
            json!({ "endpoints": endpoints, kind: place(&Target::Endpoints(Vec::new())) })
        }
        Serve::Http(target) | Serve::Grpc(target) => json!({ kind: place(target) }),
        Serve::Tcp(tcp) => {
            let same = |(port, target): (&u16, &Target)| match target {
                Target::Port(own) => own == port,
                Target::Elsewhere => true,
                Target::Unix(_) | Target::Endpoints(_) => false,
            };
            let ports = if tcp.ports.iter().all(same) {
                json!(tcp.ports.keys().collect::<Vec<_>>())
            } else {
                let places = tcp.ports.iter();
                places.map(|(port, target)| (port.to_string(), place(target))).collect()
            };
            match tcp.proxy_protocol {
                true => json!({ "proxy_protocol": "v2", kind: ports }),
                false => json!({ kind: ports }),
            }
        }
    }
}

fn place(target: &Target) -> Value {
    match target {
        Target::Port(port) => json!(port),
        // The path came from text, so nothing is lost.
        Target::Unix(path) => json!(format!("unix:{}", path.display())),
        Target::Elsewhere => Value::Null,
        Target::Endpoints(_) => json!("mtls"),
    }
}

fn test(test: &MeshTest) -> TestOut<'_> {
    let calls = |expected| {
        let calls = test.calls.iter().filter(move |call| call.expected == expected);
        calls.map(|call| call.what.to_string()).collect()
    };
    TestOut {
        allow: calls(Verdict::Allow),
        at: test.at.map(|at| at.to_string()),
        audit: calls(Verdict::Audit),
        by: test.by.as_ref().map(|rule| rule.as_str()),
        deny: calls(Verdict::Deny),
        from: test.from.as_str(),
        name: &test.name,
        to: test.to.to_string(),
    }
}
