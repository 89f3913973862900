//! h2spec, a conformance suite for HTTP/2 that is not ours, against both listeners. It is a Go program, which a newcomer
//! need not have: `go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1`, then
//! `BOTMESH_H2SPEC=$(go env GOPATH)/bin/h2spec tests/run`. What fails stands, each with its reason, in `h2spec.txt`.
//!
//! The mesh side takes nobody without an SVID, and h2spec has none, so a relay opens TLS for it; frames pass as they are.

use std::collections::BTreeSet;
use std::path::Path;

use super::frames::relay;
use super::{CALLEE, World};
use crate::spine::CHECKOUT;
use crate::support::join::Pem;
use crate::support::{as_user, both, free_port, root_or_skip, run};

/// Where the relay listens: the mesh side takes its callee's name with port 80, 443 or none.
const RELAY: &str = "127.0.0.77";

/// The names of the cases that failed, and how many ran.
fn failures(report: &Path) -> (BTreeSet<String>, usize) {
    let text = std::fs::read_to_string(report).expect("h2spec's report");
    let attribute = |case: &str, name: &str| {
        let after = case.split_once(&format!(" {name}=\"")).map_or("", |(_, after)| after);
        after.split('"').next().unwrap_or_default().to_owned()
    };
    let cases: Vec<&str> = text.split("<testcase").skip(1).collect();
    let failed = cases
        .iter()
        .filter(|case| case.contains("<failure") || case.contains("<error"));
    let names = failed.map(|case| format!("{} {}", attribute(case, "package"), attribute(case, "classname")));
    (names.collect(), cases.len())
}

/// What the list says of a side: the name of a case, before ` -- ` and its reason.
fn listed(side: &str) -> BTreeSet<String> {
    let lines = include_str!("h2spec.txt").lines();
    let of_side = lines.filter_map(|line| line.strip_prefix(side)?.strip_prefix(' '));
    of_side
        .map(|line| line.split_once(" -- ").expect("a reason").0.to_owned())
        .collect()
}

#[test]
fn h2spec_finds_what_is_listed_and_no_more() {
    let Ok(h2spec) = std::env::var("BOTMESH_H2SPEC") else {
        return;
    };
    if !root_or_skip("h2spec") {
        return;
    }
    let port = free_port();
    let extra = format!("listeners: [{{listen: \"127.0.0.1:{port}\", to: prod/orders}}]");
    let world = World::of(&["web-1"], &extra, "h2");
    let dir = world.mesh.dir();
    let place = &world.ways.last().expect("the mesh side").1;
    let tls = |key: &str| place["tls"][key].as_str().expect("text").to_owned();
    let pem = Pem {
        chain: tls("cert").into(),
        key: tls("key").into(),
    };
    let there = place["at"].as_str().expect("text");
    let _relay = relay(&world.mesh, &format!("{RELAY}:80"), there, &tls("name"), &pem);
    std::fs::write(dir.join("hosts"), format!("{RELAY} {CALLEE}\n")).expect("written");
    let mut found = Vec::new();
    for (side, host, port) in [("bot", "127.0.0.1", port), ("mesh", CALLEE, 80)] {
        let report = Path::new("/tmp").join(format!("h2spec-{side}-{}.xml", std::process::id()));
        let hosts = dir.join("hosts").display().to_string();
        // The name is one for this process only, and the caller is the bot.
        let of = |what: &str| {
            let script = format!(
                "mount --bind {hosts} /etc/hosts && exec setpriv --reuid {CHECKOUT} --regid {CHECKOUT} --clear-groups \
                 {h2spec} -S -h {host} -p {port} -P /orders/1 {what}"
            );
            run(as_user("unshare", 0).args(["-m", "sh", "-c", &script]))
        };
        let out = of(&format!("-j {}", report.display()));
        let (failed, cases) = failures(&report);
        std::fs::remove_file(&report).ok();
        assert!(cases > 100, "{}", both(&out));
        println!("{side}: {cases} cases, {} failed", failed.len());
        let told = both(&out);
        println!("{}", told.split_once("Failures:").map_or("", |(_, failures)| failures));
        // A frame beyond what is announced here.
        let large = both(&of("--max-header-length 16000 http2/4.2/3"));
        assert!(large.contains("1 passed, 0 skipped, 0 failed"), "{side}: {large}");
        found.push((side, failed));
    }
    for (side, failed) in found {
        assert_eq!(failed, listed(side), "{side}");
    }
}
