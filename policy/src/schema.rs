//! The mesh file as JSON Schema, for completion and checks in editors.
//!
//! Written by hand, because the file is read by hand: a schema derived from types would describe other types than the ones
//! that are read. A test holds its keys against those of the reader.

use serde_json::{Value, json};

/// Describes a mesh file as JSON Schema, draft 2020-12.
///
/// An editor that knows it completes keys and marks wrong ones; `policy check` says more.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "botmesh mesh file, version 1",
        "type": "object",
        "additionalProperties": false,
        "required": ["version"],
        "properties": {
            "version": {"const": 1, "description": "The version of the format."},
            "trust_domain": {
                "type": "string", "pattern": "^[a-z0-9._-]{1,255}$",
                "description": "The trust domain of all bots, the same in all files of a mesh.",
            },
            "slice": {"$ref": "#/$defs/label", "description": "Written by the CA: the host that this part is for."},
            "bots": {
                "type": "object", "additionalProperties": {"$ref": "#/$defs/bot"},
                "propertyNames": {"pattern": BOT_NAME}, "description": "Who exists.",
            },
            "groups": {
                "type": "object", "additionalProperties": one_or_many(&json!({"$ref": "#/$defs/bots"})),
                "propertyNames": {"$ref": "#/$defs/label"}, "description": "Names for lists of bots and patterns.",
            },
            "allow": {"type": "array", "items": {"$ref": "#/$defs/allow"}, "description": "Who may call what."},
            "deny": {"type": "array", "items": {"$ref": "#/$defs/deny"}, "description": "What nobody may do; wins over allow."},
            "destinations": {
                "type": "object", "additionalProperties": false,
                "patternProperties": {
                    BOT_NAME: {"$ref": "#/$defs/destination"},
                    OUTSIDE: {"$ref": "#/$defs/outside"},
                },
                "description": "How long calls to a callee are waited for, and where one outside may be.",
            },
            "limits": {
                "type": "array", "items": {"$ref": "#/$defs/limit"},
                "description": "How often each caller may call; beyond it calls are refused with 429.",
            },
            "credentials": {
                "type": "object", "additionalProperties": {"$ref": "#/$defs/credential"},
                "propertyNames": {"pattern": "^[a-z0-9][a-z0-9-]{0,62}$"},
                "description": "What proxies add to calls to the outside. No values: those are on the hosts.",
            },
            "audit_only": {
                "type": "array", "items": {"$ref": "#/$defs/audit_only"},
                "description": "Callees to which calls without a rule are carried and recorded until a time.",
            },
            "tests": {"type": "array", "items": {"$ref": "#/$defs/test"}, "description": "Calls and their expected verdicts."},
        },
        "$defs": definitions(),
    })
}

const BOT_NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,5}$";

/// A destination outside, as rules name it.
const OUTSIDE: &str = "^(https|http|tls|postgres)://[a-z0-9*.-]+(:[0-9]+)?$";

fn definitions() -> Value {
    json!({
        "label": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
        "text": {"type": "string", "minLength": 1, "maxLength": 256},
        "id": {"type": "string", "pattern": "^[a-z0-9-]{1,63}$", "description": "Unique; shown in refusals, records and metrics."},
        "bots": {"type": "string", "description": "A bot, or a pattern: prod/orders, prod/*, prod/report-*, staging/**."},
        "subjects": one_or_many(&json!({
            "type": "string", "description": "A bot, a pattern, or group:NAME; in `to` also https://HOST, http://HOST, tls://HOST, postgres://HOST, secret://CREDENTIAL.",
        })),
        "http": one_or_many(&json!({
            "type": "string", "pattern": "^(\\*|[A-Z][A-Z-]{0,31}) /",
            "description": "METHOD and path: GET /orders/*. `*` is one segment, `**` (last) any number; `*` as method is any.",
        })),
        "grpc": one_or_many(&json!({
            "type": "string", "pattern": "^[A-Za-z0-9_.*-]+/[A-Za-z0-9_.*-]+$",
            "description": "SERVICE/METHOD: acme.orders.v1.Orders/Get. `*` is a whole name, or the end of one.",
        })),
        "calls": one_or_many(&json!({
            "type": "string", "pattern": "^([A-Z][A-Z-]{0,31} /|grpc [^/]+/|tcp [1-9][0-9]*$|tls$|postgres [A-Za-z0-9_.$-]+$)",
            "description": "METHOD and path, or grpc and SERVICE/METHOD, or tcp and a port, or tls, or postgres and a database.",
        })),
        "time": {"type": "string", "format": "date-time"},
        "bot": bot(),
        "attest": attest(),
        "allow": rule(true),
        "deny": rule(false),
        "destination": destination(false),
        "outside": destination(true),
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "tcp": one_or_many(&json!({"$ref": "#/$defs/port"})),
        "postgres": one_or_many(&json!({"type": "string", "pattern": "^(\\*|[A-Za-z0-9_.$-]{1,63})$"})),
        "limit": limit(),
        "audit_only": audit_only(),
        "credential": credential(),
        "test": test(),
    })
}

fn one_or_many(item: &Value) -> Value {
    json!({"oneOf": [item, {"type": "array", "items": item, "minItems": 1}]})
}

fn bot() -> Value {
    let place = json!({"oneOf": [
        {"type": "integer", "minimum": 1, "maximum": 65535, "description": "A port of 127.0.0.1."},
        {"type": "string", "pattern": "^unix:/", "description": "A Unix socket."},
    ]});
    let mtls = json!({"const": "mtls", "description": "The bot opens its own mutual TLS, at its endpoints."});
    let of_requests = json!({"anyOf": [place, mtls]});
    json!({
        "type": "object", "additionalProperties": false, "required": ["owner", "hosts"],
        "properties": {
            "owner": {"$ref": "#/$defs/text", "description": "Whom to ask about the bot."},
            "hosts": one_or_many(&json!({"type": "string", "description": "A host, the start of one and *, or *."})),
            "attest": one_or_many(&json!({"$ref": "#/$defs/attest"})),
            "serve": {
                "description": "What the bot serves on its own host.",
                "oneOf": [{"enum": ["http", "grpc"], "description": "In slices only."}, {
                    "type": "object", "additionalProperties": false, "maxProperties": 2,
                    "properties": {
                        "http": of_requests, "grpc": of_requests,
                        "tcp": {"oneOf": [
                            {"$ref": "#/$defs/port"},
                            {"type": "array", "items": {"$ref": "#/$defs/port"}, "minItems": 1, "maxItems": 64},
                            {"type": "object", "additionalProperties": place, "propertyNames": {"pattern": "^[1-9][0-9]{0,4}$"}},
                        ]},
                        "endpoints": {
                            "type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 16,
                            "description": "With mtls: hosts and ports, such as 10.0.0.7:8443.",
                        },
                        "proxy_protocol": {"const": "v2", "description": "With tcp: who calls, before the first byte."},
                    },
                }],
            },
            "svid_ttl": {"type": "string", "pattern": "^[0-9]+[smh]$", "description": "1m to 24h; 1h by default."},
            "keys": {"const": "proxy", "description": "Keys stay with the proxy."},
        },
    })
}

fn attest() -> Value {
    let user = json!({"type": "string", "minLength": 1, "maxLength": 255});
    let operator = json!({"oneOf": [user, {"type": "integer", "minimum": 0}]});
    json!({
        "type": "object", "additionalProperties": false,
        "anyOf": [{"required": ["user"]}, {"required": ["uid"]}, {"required": ["unit"]}, {"required": ["run_by"]}],
        "properties": {
            "user": user,
            "uid": {"type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32},
            "unit": {"type": "string", "pattern": "^[A-Za-z0-9:_.\\\\@-]+\\.service$", "description": "A service of the system."},
            "group": user,
            "gid": {"type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32},
            "cgroup": {"type": "string", "pattern": "^/", "description": "The path below the root of cgroups, version 2."},
            "exe": {"type": "string", "pattern": "^/", "description": "Only narrows: needs user, uid, unit or run_by beside it."},
            "exe_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "run_by": one_or_many(&operator),
            "socket": {"const": true, "description": "Only over the bot's own socket: needs user or uid beside it."},
        },
    })
}

/// The keys that say which calls a rule speaks of.
const CALLS: [&str; 4] = ["http", "grpc", "tcp", "postgres"];

fn rule(allow: bool) -> Value {
    let mut properties = json!({
        "id": {"$ref": "#/$defs/id"},
        "from": {"$ref": "#/$defs/subjects"},
        "to": {"$ref": "#/$defs/subjects"},
        "http": {"$ref": "#/$defs/http"},
        "grpc": {"$ref": "#/$defs/grpc"},
        "tcp": {"$ref": "#/$defs/tcp", "description": "Ports."},
        "postgres": {"$ref": "#/$defs/postgres", "description": "Databases of postgres://; `*` is every one."},
        "until": {"$ref": "#/$defs/time", "description": "At this moment the rule has ended."},
        "reason": {"$ref": "#/$defs/text"},
        "path": {"const": "hashed", "description": "Records have a hash in the place of the path."},
    });
    if allow && let Some(properties) = properties.as_object_mut() {
        let browser = json!({"type": "boolean", "description": "Takes calls that look like a browser's."});
        properties.insert("browser".to_owned(), browser);
        let justify =
            json!({"$ref": "#/$defs/text", "description": "Why tls:// may be called, into which nobody looks."});
        properties.insert("justify".to_owned(), justify);
        let protocol = json!({"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}$"});
        properties.insert("upgrade".to_owned(), one_or_many(&protocol));
        let inject = json!({"type": "string", "description": "The credential that the proxy adds to its calls."});
        properties.insert("inject".to_owned(), inject);
    }
    let required = if allow {
        json!(["id", "from", "to"])
    } else {
        json!(["id", "from", "to", "reason"])
    };
    let items: Vec<Value> = CALLS.map(|key| json!({"required": [key]})).to_vec();
    let none = json!({"not": {"anyOf": items}});
    let tls = json!({"required": ["justify"], "not": {"anyOf": items}});
    let of = [items, vec![if allow { tls } else { none }]].concat();
    let together = json!({"until": ["reason"], "reason": ["until"]});
    let together = if allow { together } else { json!({}) };
    json!({
        "type": "object", "additionalProperties": false, "required": required,
        "properties": properties, "dependentRequired": together,
        // Exactly one of them; or none in a rule about tls://, and in a deny rule that covers every call.
        "oneOf": of,
    })
}

fn destination(outside: bool) -> Value {
    let number = |least: u32, most: u32, what: &str| json!({"type": "integer", "minimum": least, "maximum": most, "description": what});
    let wait = |what: &str| json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$", "description": what});
    let mut destination = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "connect_timeout": wait("To the bot, and to the proxy of its host: 10ms to 30s."),
            "request_timeout": wait("To the head of the answer: 10ms to 1h."),
            "stream_idle": wait("While no byte moves in either direction after that: 100ms to 10m."),
            "retries": number(0, 1, "How often a call that may have begun is sent again, where that is the same as once."),
            "max_in_flight": number(1, 100_000, "Calls at a time, at each proxy; one caller takes three quarters of them."),
            "max_pending": number(1, 100_000, "Calls of one caller that wait for a connection."),
            "max_failures": number(0, 1_000, "Failures in a row that shut one caller out for a while; 0: never."),
        },
    });
    if outside && let Some(properties) = destination.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|key, _| crate::read::OUTSIDE.known.contains(&key.as_str()));
        let addresses = json!({"type": "string", "description": "10.20.0.0/16, or one address."});
        properties.insert("addresses".to_owned(), one_or_many(&addresses));
        let ca = json!({"type": "string", "maxLength": 32768, "description": "PEM: who vouches for it, in place of the web's authorities."});
        properties.insert("ca".to_owned(), ca);
    }
    destination
}

fn credential() -> Value {
    let field = json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "description": "The name of a field."});
    let word = json!({"type": "string", "maxLength": 64});
    let ways = [
        "header",
        "bearer",
        "basic",
        "query",
        "hmac",
        "sigv4",
        "postgres",
        "oauth",
        "github_app",
        "federate",
        "url",
    ];
    json!({
        "type": "object", "additionalProperties": false, "required": ["owner"],
        "oneOf": ways.map(|way| json!({"required": [way]})),
        "dependentRequired": {"prefix": ["header"], "query": ["unsafe_query"], "unsafe_query": ["query"]},
        "properties": {
            "owner": {"$ref": "#/$defs/text", "description": "Whom to ask about the credential."},
            "header": field, "prefix": word,
            "bearer": {"const": true, "description": "Authorization: Bearer VALUE."},
            "basic": {"type": "string", "maxLength": 64, "description": "The user; the value is the password."},
            "query": word,
            "unsafe_query": {"$ref": "#/$defs/text", "description": "Why it must be in the query."},
            "hmac": {
                "type": "object", "additionalProperties": false, "required": ["header"],
                "properties": {
                    "header": field, "prefix": word, "timestamp": field,
                    "hash": {"enum": ["sha256", "sha512"]}, "encoding": {"enum": ["hex", "base64"]},
                },
            },
            "sigv4": {
                "type": "object", "additionalProperties": false, "required": ["region", "service"],
                "properties": {"region": word, "service": word},
            },
            "postgres": {
                "type": "object", "additionalProperties": false, "required": ["user"],
                "properties": {
                    "user": {"type": "string", "pattern": "^[A-Za-z0-9_.$-]{1,63}$", "description": "The user of the database."},
                    "svid": {"const": true, "description": "By the bot's SVID; else the value is the password."},
                },
            },
            "oauth": oauth(),
            "github_app": github_app(),
            "federate": federate(),
            "url": {"type": "string", "pattern": "^https://[^/]+$", "description": "Where a webhook is; the value is its whole address, called as secret://NAME."},
            "rotate_every": {"type": "string", "pattern": "^[0-9]+[hd]$", "description": "1h to 366d."},
            "shared": {"$ref": "#/$defs/text", "description": "Why several bots use it."},
            "probe": {"type": "string", "pattern": "^(GET|HEAD) https://", "description": "A request that tells whether a value is taken."},
        },
    })
}

fn oauth() -> Value {
    let text = json!({"type": "string", "maxLength": 1024});
    json!({
        "type": "object", "additionalProperties": false, "required": ["token_url", "client_id"],
        "description": "The value is exchanged for a token (RFC 6749), which is added as Authorization: Bearer.",
        "properties": {
            "token_url": {"type": "string", "pattern": "^https://", "description": "Where; `destinations` says more of its host."},
            "client_id": text, "audience": text, "resource": text,
            "scope": {"type": "string", "maxLength": 1024, "description": "Names with one space between them."},
            "grant": {"enum": ["client_credentials", "refresh_token"], "description": "What the value is; by default a client's secret."},
            "auth": {"enum": ["basic", "post", "none"], "description": "How the client says who it is; basic by default."},
        },
    })
}

fn github_app() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["app_id", "installation_id"],
        "description": "The value is the app's private key, which is exchanged for a token of its installation.",
        "properties": {
            "app_id": {"type": ["integer", "string"], "description": "Its ID or client ID."},
            "installation_id": {"type": "integer", "minimum": 1, "description": "Where it is installed."},
            "base": {"type": "string", "pattern": "^https://", "description": "Where the API begins; https://api.github.com by default."},
        },
    })
}

fn federate() -> Value {
    let text = json!({"type": "string", "maxLength": 1024});
    let url = json!({"type": "string", "pattern": "^https://", "description": "Where it is exchanged; without it the service gets the JWT-SVID itself."});
    json!({
        "type": "object", "additionalProperties": false, "required": ["audience"],
        "description": "There is no value: the bot's own JWT-SVID, or what it is exchanged for, is added as Authorization: Bearer.",
        "properties": {
            "audience": {"type": "string", "maxLength": 1024, "description": "The `aud` of the JWT-SVID."},
            "token_url": url, "client_id": text, "resource": text,
            "grant": {"enum": ["token_exchange", "jwt_bearer", "client_credentials"], "description": "RFC 8693 by default; RFC 7523 §2.1 or §2.2."},
            "scope": {"type": "string", "maxLength": 1024, "description": "Names with one space between them."},
            "token_audience": {"type": "string", "maxLength": 1024, "description": "Whom the token is for."},
            "subject_token_type": {"enum": ["jwt", "id_token"]},
            "requested_token_type": {"enum": ["access_token", "id_token", "jwt"]},
            "encoding": {"enum": ["form", "json"], "description": "How the request is written."},
            "parameters": {
                "type": "object", "maxProperties": 16, "additionalProperties": text,
                "description": "What else the provider wants to be told.",
            },
        },
    })
}

fn limit() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["id", "from", "to", "rate", "burst"],
        "properties": {
            "id": {"$ref": "#/$defs/id"},
            "from": {"$ref": "#/$defs/subjects", "description": "Each of them has an allowance of its own."},
            "to": {"$ref": "#/$defs/subjects"},
            "rate": {"type": "string", "pattern": "^[0-9]{1,7}/[smh]$", "description": "10/s, 600/m, 5000/h."},
            "burst": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "description": "Calls at once after a rest."},
        },
    })
}

fn audit_only() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["to", "until", "reason"],
        "properties": {
            "to": {"$ref": "#/$defs/subjects"},
            "until": {"$ref": "#/$defs/time", "description": "At this moment it has ended."},
            "reason": {"$ref": "#/$defs/text"},
        },
    })
}

fn test() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "from", "to"],
        "anyOf": [{"required": ["allow"]}, {"required": ["audit"]}, {"required": ["deny"]}],
        "properties": {
            "name": {"$ref": "#/$defs/text"},
            "from": {"type": "string", "pattern": BOT_NAME},
            "to": {"type": "string", "description": "A bot, or a destination outside."},
            "at": {"$ref": "#/$defs/time", "description": "The time of the calls; the present by default."},
            "by": {"$ref": "#/$defs/id", "description": "The rule that must decide."},
            "allow": {"$ref": "#/$defs/calls"},
            "audit": {"$ref": "#/$defs/calls", "description": "Carried by `audit_only` alone."},
            "deny": {"$ref": "#/$defs/calls"},
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::read::{
        ATTEST, AUDIT_ONLY, BOT, CREDENTIAL, DESTINATION, FEDERATE, GITHUB_APP, HMAC, Keys, LIMIT, MESH, OAUTH,
        OUTSIDE, POSTGRES, SERVE, SIGV4, TEST, rule_keys,
    };
    use crate::rule::Effect;

    fn keys(object: &Value) -> BTreeSet<&str> {
        object["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect()
    }

    fn known(keys: &Keys) -> BTreeSet<&str> {
        keys.known.iter().copied().collect()
    }

    #[test]
    fn the_schema_has_the_keys_that_the_reader_reads() {
        let schema = json_schema();
        let of = |name: &str| &schema["$defs"][name];
        assert_eq!(keys(&schema), known(&MESH));
        assert_eq!(keys(of("bot")), known(&BOT));
        assert_eq!(keys(of("attest")), known(&ATTEST));
        assert_eq!(keys(&of("bot")["properties"]["serve"]["oneOf"][1]), known(&SERVE));
        assert_eq!(keys(of("allow")), known(rule_keys(Effect::Allow)));
        assert_eq!(keys(of("deny")), known(rule_keys(Effect::Deny)));
        assert_eq!(keys(of("destination")), known(&DESTINATION));
        assert_eq!(keys(of("outside")), known(&OUTSIDE));
        assert_eq!(keys(of("limit")), known(&LIMIT));
        assert_eq!(of("limit")["required"], json!(LIMIT.known));
        assert_eq!(keys(of("audit_only")), known(&AUDIT_ONLY));
        assert_eq!(of("audit_only")["required"], json!(["to", "until", "reason"]));
        assert_eq!(keys(of("credential")), known(&CREDENTIAL));
        assert_eq!(keys(&of("credential")["properties"]["hmac"]), known(&HMAC));
        assert_eq!(keys(&of("credential")["properties"]["sigv4"]), known(&SIGV4));
        assert_eq!(keys(&of("credential")["properties"]["postgres"]), known(&POSTGRES));
        assert_eq!(keys(&of("credential")["properties"]["oauth"]), known(&OAUTH));
        assert_eq!(keys(&of("credential")["properties"]["github_app"]), known(&GITHUB_APP));
        assert_eq!(keys(&of("credential")["properties"]["federate"]), known(&FEDERATE));
        assert_eq!(keys(of("test")), known(&TEST));
    }

    #[test]
    fn every_map_is_closed_and_every_reference_leads_somewhere() {
        fn look(value: &Value, schema: &Value) {
            match value {
                Value::Object(map) => {
                    if map.contains_key("properties") {
                        assert_eq!(map.get("additionalProperties"), Some(&json!(false)));
                    }
                    if let Some(Value::String(target)) = map.get("$ref") {
                        assert!(schema.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                    }
                    map.values().for_each(|value| look(value, schema));
                }
                Value::Array(items) => items.iter().for_each(|value| look(value, schema)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let schema = json_schema();
        look(&schema, &schema);
    }

    #[test]
    fn what_must_come_together_is_required() {
        let schema = json_schema();
        let of = |name: &str| &schema["$defs"][name];
        assert_eq!(of("allow")["required"], json!(["id", "from", "to"]));
        let one = CALLS.map(|key| json!({"required": [key]}));
        let none = json!({"not": {"anyOf": one}});
        let tls = json!({"required": ["justify"], "not": {"anyOf": one}});
        assert_eq!(of("allow")["oneOf"], json!([one[0], one[1], one[2], one[3], tls]));
        assert_eq!(of("deny")["oneOf"], json!([one[0], one[1], one[2], one[3], none]));
        assert_eq!(
            of("allow")["dependentRequired"],
            json!({"until": ["reason"], "reason": ["until"]})
        );
        assert_eq!(of("deny")["required"], json!(["id", "from", "to", "reason"]));
        assert_eq!(of("deny")["dependentRequired"], json!({}));
    }
}
