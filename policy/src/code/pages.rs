//! The page behind each code.

use super::*;

/// Every code with its page. A page starts with the code, says why, and says what to do.
pub(super) const PAGES: &[(Code, &str)] = &[
    (
        SYNTAX,
        "BM0100: the file is not YAML

A mesh file is YAML 1.2; JSON is YAML too. The place is where the reader could not go on, often one
line after the mistake: a missing colon, a tab used to indent, a quote that is not closed.
A text that starts with `*`, `&`, `!`, `%`, `@` or `{` must be quoted: from: \"**\".
",
    ),
    (
        YAML_FEATURE,
        "BM0101: a feature of YAML that mesh files do not use

Anchors (&a), aliases (*a), merge keys (<<) and tags (!x) let one line change what another one says,
so a reviewer cannot trust what is on the screen. They are refused.
Write the value out, or put several bots in a group. A pattern that starts with `*` must be quoted.
",
    ),
    (
        DUPLICATE_KEY,
        "BM0102: the same key twice in one map

YAML readers differ in which of the two they take. Both places are shown.
Keep one of them.
",
    ),
    (
        TOO_LARGE,
        "BM0103: too large

A mesh has at most 4 MiB in all its files, 10 000 rules, 10 000 bots and 8 levels of nesting; lists
in one rule, group, test or bot are bounded as well. The bounds keep reading and deciding fast.
Use patterns and groups in place of many single names.
",
    ),
    (
        UNKNOWN_KEY,
        "BM0104: unknown key

Nothing has a key of this name here. It is refused, because a key that is ignored looks enforced.
Check the spelling and the level of indentation; `botmesh policy schema` lists all keys.
",
    ),
    (
        MISSING_KEY,
        "BM0105: a key is missing

The map shown lacks a key that it must have.
Add it. A rule has `id`, `from`, `to` and `http`; a bot has `owner`, `hosts` and `attest`.
",
    ),
    (
        WRONG_KIND,
        "BM0106: another kind of value is expected

YAML guesses the type of a bare word: 0123, 1e3, true and 1.10 are not text.
Quote the value if text is meant; write one value or a flat list where a list is meant.
",
    ),
    (
        ONE_DOCUMENT,
        "BM0107: one file holds one document

A file must hold exactly one map. An empty file and a second document after `---` are refused:
half of a mesh is not a mesh.
Put a second document in a file of its own; all files given are merged.
",
    ),
    (
        VERSION,
        "BM0108: the version of the format

Each file starts with `version: 1`, so that a later format is never read by these rules.
Write `version: 1`.
",
    ),
    (
        TRUST_DOMAIN,
        "BM0109: the trust domain

All bots of a mesh belong to one trust domain: lower-case letters, digits, `.`, `-` and `_`, such as
acme.internal. All files of a mesh name the same one.
Correct the name, or the file that differs.
",
    ),
    (
        BOT_NAME,
        "BM0110: not a bot name

A bot name has 1 to 6 segments, separated by `/`. A segment has 1 to 63 of a-z, 0-9 and `-`, with a
letter or digit first and last. The first segment is none of `botmesh`, `mesh`, `localhost`.
Example: prod/orders.
",
    ),
    (
        HOSTS,
        "BM0111: not a host pattern

`hosts` lists the hosts whose proxies may claim the bot: a host name, the start of one and `*`
(web-*), or `*`. The CA issues no SVID for the bot to any other host.
Example: hosts: [web-1, web-*].
",
    ),
    (
        OWNER,
        "BM0112: the owner

Every bot has an owner: the person or team to ask when the bot misbehaves.
Example: owner: shop@acme.internal.
",
    ),
    (
        SELECTOR,
        "BM0113: a selector that cannot match

A value under `attest` is not one that a process can have: `user` and `group` are names, `uid` and
`gid` numbers, `unit` a whole name as orders.service, `cgroup` and `exe` absolute paths without `.`
and `..`, `exe_sha256` 64 lower-case hex digits, `run_by` a list of operators.
Correct the value.
",
    ),
    (
        NO_BOUNDARY,
        "BM0114: nothing that another process could not imitate

Each map under `attest` needs `user`, `uid`, `unit` or `run_by`. `exe`, `exe_sha256`, `group`, `gid`
and `cgroup` only narrow: another user may start the same program, or be in the same group.
Give the bot a user of its own and add `user: NAME`.
",
    ),
    (
        SERVE,
        "BM0115: what the bot serves

serve: {http: 8080} says that the bot listens on 127.0.0.1:8080; serve: {http: unix:/run/x/x.sock}
names a Unix socket by its absolute path, at most 107 bytes.
The socket is the better choice: a loopback port can be called by every local process.
",
    ),
    (
        SVID_TTL,
        "BM0116: the life of an SVID

`svid_ttl` is a whole number and a unit: s, m or h, from 1m to 24h. The default is 1h.
A short life bounds what a stolen key is worth; SVIDs are renewed on their own.
",
    ),
    (
        TEXT,
        "BM0117: a text that cannot be shown as it is

Owners, reasons and names of tests are shown in terminals, answers and records. They are not empty,
have at most 256 characters and hold no control characters and none that reverse the direction.
Shorten the text or remove the character.
",
    ),
    (
        WAIT,
        "BM0118: the time is not in bounds

`destinations` says how long calls to a bot are waited for: `connect_timeout` from 10ms to 30s,
`request_timeout`, to the head of the answer, from 10ms to 1h, and `stream_idle`, while no byte
moves in either direction after it, from 100ms to 10m. What is not said is left to the proxies.
Write a whole number and ms, s, m or h.
",
    ),
    (
        DESTINATION_NUMBER,
        "BM0119: the number is not in bounds

`destinations` bounds the calls to a bot: `max_in_flight` at a time, from 1 to 100000,
`max_pending` of one caller that wait for a connection, from 1 to 100000, and `max_failures` in a
row after which one caller is refused for a while, up to 1000, 0 for never. `retries` is 0 or 1:
whether a call that may have begun is sent once more, where that is the same as once.
",
    ),
    (
        UNKNOWN_GROUP,
        "BM0120: the group is not defined

A rule names group:NAME, but `groups` has no NAME. Such a rule would match nobody, or after a
later edit the wrong bots.
Define the group or correct the name.
",
    ),
    (
        UNKNOWN_BOT,
        "BM0121: the bot is not defined

A rule, group or test names a bot that `bots` does not have. Only bots of the mesh can call and be
called, so the line would do nothing.
Define the bot or correct the name. A pattern such as prod/* may match nothing (BM0403).
",
    ),
    (
        GROUP,
        "BM0122: not a group

A group has a name of 1 to 63 of a-z, 0-9 and `-`, with a letter or digit first and last, and lists
bots and patterns. Groups hold no groups: a group is what you see.
Write the members out.
",
    ),
    (
        NAME_PATTERN,
        "BM0123: not a pattern over bots

`*` is one whole segment, `ab-*` a segment that starts with ab-, and `**`, only last, zero or more
segments. There are no regular expressions and there is no negation.
Examples: prod/orders, prod/*, prod/report-*, staging/**, \"**\", group:readers.
",
    ),
    (
        RULE_ID,
        "BM0130: not an id

The id of a rule has 1 to 63 of a-z, 0-9 and `-`. It appears in every refusal, record and metric.
Example: checkout-reads-orders.
",
    ),
    (
        DUPLICATE_ID,
        "BM0131: defined twice

Two rules have one id, or two files define one bot or group. Order never matters in a mesh file, so
neither can win. Both places are shown.
Rename or remove one.
",
    ),
    (
        HTTP_ITEM,
        "BM0132: not METHOD and path

An item of `http` is a method, one space and a path: GET /orders/*. `*` as method is any method.
In YAML quote an item that starts with `*`: [\"* /admin/**\"].
",
    ),
    (
        METHOD,
        "BM0133: not a method

A method has upper-case letters and `-`. Methods are literal: GET does not cover HEAD. CONNECT and
TRACE are no calls between bots and are refused everywhere.
Write GET, POST, … or `*` for any.
",
    ),
    (
        PATH,
        "BM0134: not a path, or one that no request can have

Requests are read in one way: no `//`, no `.` and `..` segments, no escaped slash, no `;`, no `#`,
escapes only where needed and in upper case. A pattern that is not of that form would never match.
`*` is one segment, `ab-*` a segment that starts with ab-, `**` (last) zero or more. The query is no
part of a path.
",
    ),
    (
        UNTIL_REASON,
        "BM0135: `until` and `reason` come together

A rule that ends says why it was needed, and a rule with a reason to be special ends. A deny rule
always has a `reason`, because the refused caller reads it; `until` is optional there.
Add the missing key or remove the other one.
",
    ),
    (
        NO_MATCH,
        "BM0136: the rule says who but not what

An allow rule has `http` with at least one item. To allow everything, say so: http: [\"* /**\"].
A deny rule without `http` forbids every call.
",
    ),
    (
        SERVES_NOTHING,
        "BM0137: the bot serves nothing

An allow rule names a bot in `to` that has no `serve`, so no call can reach it.
Add serve: {http: …} to the bot, or correct the name.
",
    ),
    (
        TIME,
        "BM0138: not a time

Times are RFC 3339 with an offset: 2026-12-01T18:00:00Z. At that very moment the rule has ended.
",
    ),
    (
        LIMIT,
        "BM0139: not a rate or burst

A limit says how many calls each caller may make: `rate` is a whole number and /s, /m or /h, and
`burst` is how many may come at once after a rest, at least 1.
The callee's proxy counts, for each caller; beyond it calls are refused as `rate_limited`, 429.
Write, say: rate: 10/s, burst: 20. To forbid calls, write a deny rule.
",
    ),
    (
        SAME_PROCESS,
        "BM0140: one process would be two bots

Every process that one bot's `attest` map takes is also taken by another bot's, on a host that may
claim both. Such a process is refused, so neither bot can call.
Give each bot a user of its own, or narrow both maps: by unit, group or program.
",
    ),
    (
        GRPC_ITEM,
        "BM0145: not a method of gRPC

A `grpc` item is SERVICE/METHOD as the .proto file has them, the service with its package:
acme.orders.v1.Orders/Get. `*` is a whole name, or the end of one: acme.orders.v1.Orders/*,
acme.orders.v1.Orders/Get*. Names compare exactly in allow rules and without case in deny rules.
Correct the item.
",
    ),
    (
        OTHER_PROTOCOL,
        "BM0146: a rule of another protocol

A rule speaks of the calls of one protocol, and a bot serves one: a rule with `http` cannot name a
bot that serves grpc, nor the other way round. Where `to` is a pattern or a group, an allow rule
speaks of those bots only that serve its protocol; a deny rule holds for all of them.
Write a rule of the bot's own protocol, or correct what the bot serves.
",
    ),
    (
        OUTSIDE,
        "BM0147: a destination outside of the mesh

`to` names a destination outside as https://, http://, tls:// or postgres://, a DNS name in lower
case and a port where it is not the scheme's own: https://api.example.com:8443. Only tls:// takes a
wildcard, one label: tls://*.news.example; such a rule has a `justify`, because nobody sees what is
said inside. https:// and http:// rules have `http` items. postgres:// rules have `postgres` items,
which are databases or `*`, and an `inject`. secret://NAME is the address that the credential NAME
holds, such as a webhook's: http: [POST /], and `destinations` of it by that name. A rule is about
one of bots, requests, TLS, databases, addresses that are secrets.
`destinations` says of one: `addresses`, the only ranges that it may be in (without it every public
address and no other), and `ca`, the PEM text of the certificates that vouch for it.
",
    ),
    (
        TCP_PORT,
        "BM0148: a port of TCP

`tcp` lists ports, from 1 to 65535: in `serve` those that the bot serves, in a rule those that may
be called. serve: {tcp: [5432]} listens on 127.0.0.1:5432; serve: {tcp: {5432: unix:/run/x/x.sock}}
says for each port where the bot listens. A rule to one bot names ports that it serves.
Correct the port, or what the bot serves.
",
    ),
    (
        CREDENTIAL,
        "BM0149: a credential that a proxy adds to calls

`credentials` names what proxies add to calls to the outside: `owner`, and one of
  header: x-api-key        the value in that field, after `prefix` where there is one
  bearer: true             Authorization: Bearer VALUE
  basic: USER              Authorization: Basic, the value is the password
  query: NAME              the value as a parameter, with `unsafe_query: REASON`
  hmac: {header: …}        the body signed with the value: hash, encoding, prefix, timestamp
  sigv4: {region: …, service: …}   signed as AWS asks; the value is ID:SECRET
  postgres: {user: …}      the proxy authenticates by SCRAM, the value is the password;
                           with `svid: true` by the bot's SVID, and there is no value
  oauth: {token_url: …, client_id: …}   exchanged for a token, which is sent as bearer: grant,
                           auth, scope, audience, resource
  github_app: {app_id: …, installation_id: …}   the value is the app's private key, exchanged for
                           a token of that installation; `base` for GitHub Enterprise
  federate: {audience: …}  no value at all: the bot's own JWT-SVID for that audience is the bearer,
                           or what it is exchanged for at `token_url`: grant, client_id, scope,
                           resource, token_audience, encoding, parameters
  url: https://hooks.slack.com   the value is the whole address of a webhook there; a rule calls it
                           by to: secret://NAME and http: [POST /], and has no `inject`
`probe: GET https://api.example.com/v1/models` tells a value that the service takes from one that it
refuses; `botmesh secret rotate` asks it. A rule that adds the credential must allow that request.
The value is never here: each host reads it by `credentials` of its own proxy.yaml.
A rule adds it by `inject: NAME`. It calls https://, or postgres:// for
a credential with `postgres`, and nothing else, and switches to no protocol.
",
    ),
    (
        TEST,
        "BM0150: a test that tests nothing

A test names two bots of the mesh and has calls under `allow` or `deny`: METHOD and a path as a
client would send it, without wildcards. `by` names the rule that must decide.
Correct the line.
",
    ),
    (
        SLICE,
        "BM0160: a slice is made by the CA

`slice` marks the part of a mesh that one host needs. It stands alone and is not written by hand:
a slice holds only some of the bots and no tests.
Remove the key, or load the slice alone.
",
    ),
    (
        NOT_ENFORCED,
        "BM0190: not enforced by this version

The key is part of the mesh format, but this version does not enforce it. It is refused, never
accepted and ignored, so that no file promises more than the mesh keeps.
Remove it, or use a version that enforces it.
",
    ),
    (
        TEST_FAILED,
        "BM0301: a test of the mesh file failed

The rules decide the call otherwise than the test expects, or another rule decides it than `by`
names.
`botmesh policy explain FROM TO 'METHOD PATH'` shows every attribute.
Correct the rules or the test; `apply` refuses a mesh whose tests fail.
",
    ),
    (
        INTERPRETER,
        "BM0401: the program is an interpreter

`exe` names a program that runs whatever file it is given, so it says nothing about which bot it is.
The user alone tells the bot apart.
Give the bot a user or a unit of its own, and do not rely on `exe`.
",
    ),
    (
        SHARED_USER,
        "BM0402: two bots share a user or a unit

Processes of one user can trace and signal each other and write each other's files, so either bot
can become the other. What else tells them apart is a convenience, not a boundary.
Give each bot a user of its own.
",
    ),
    (
        EMPTY_PATTERN,
        "BM0403: the pattern matches no bot

No bot of the mesh matches, or none that serves anything where a callee is meant. The rule does
nothing now, and takes effect when such a bot is added.
Check the spelling.
",
    ),
    (
        UNUSED_GROUP,
        "BM0404: no rule uses the group

The group is defined, but no rule names it.
Remove it, or write group:NAME in a rule.
",
    ),
    (
        AUDIT_ONLY,
        "BM0405: calls that no rule allows are carried

`audit_only` is on for these callees: until its end the proxies carry calls that no rule speaks of,
and record them with the verdict `audit` and the rule that comes nearest.
Deny rules, quarantines, limits, ended rules and browsers' calls are refused as ever.
`botmesh audit query verdict=audit` lists what needs a rule. Write those rules and remove the entry.
",
    ),
    (
        WIDE_DENIAL,
        "BM0406: a deny rule that denies more than it says

An attribute that a protocol lacks matches in a deny rule: a TCP connection has neither method nor
path, so a rule with `http` denies every connection to the bots that serve tcp and match its `to`;
and a rule with `tcp` denies every request. Otherwise a rule could be passed by another protocol.
Name the bots that are meant, or leave it so where all of their calls are meant.
",
    ),
    (
        SHARED_CREDENTIAL,
        "BM0407: several bots use one credential

Who called the service is then known to the ledger and not to the service, and to replace the
credential after one bot misbehaved stops the others too.
Ask the service for one credential for each bot, or write `shared: REASON` in the credential.
",
    ),
    (
        UNUSED_CREDENTIAL,
        "BM0408: no rule uses the credential

The credential is defined, but no rule says `inject: NAME`, or calls secret://NAME. A value that a
host keeps for it is an orphan: revoke it at the service and remove it.
",
    ),
];
