//! What Prometheus reads of a proxy.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Caller, Mesh, both, eventually, http_get, root_or_skip};

fn scraped(mesh: &Mesh, host: &str) -> String {
    let (status, text) = http_get(mesh.host(host).ports.metrics, "/metrics").expect("the metrics");
    assert_eq!(status, 200, "{text}");
    text
}

/// What `promtool check metrics` has to say, which is nothing.
fn lint(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of the Debian package prometheus");
    let mut to = child.stdin.take().expect("its standard input");
    to.write_all(text.as_bytes()).expect("written");
    drop(to);
    let out = child.wait_with_output().expect("promtool");
    assert!(out.status.success(), "{}", both(&out));
    assert_eq!(both(&out).trim(), "", "{text}");
}

#[test]
fn prometheus_takes_the_metrics_of_a_proxy_and_the_readme_tells_of_each() {
    if !root_or_skip("the metrics of a proxy") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/17").status, 200);
    assert_eq!(checkout.call("DELETE", "orders.prod.mesh", "/orders/17").status, 403);
    let wanted = [
        "botmesh_attestations_total{attestor=\"unix\",result=\"ok\"} 1",
        "botmesh_policy_rejected_revision 0",
        "botmesh_policy_decision_duration_seconds_count 1",
        "botmesh_quarantined{kind=\"bot\"} 0",
        "botmesh_rule_last_used_timestamp_seconds{rule=\"checkout-reads-orders\"} 1",
        "botmesh_streams_cut_total{reason=\"quarantined\"} 0",
        "botmesh_svid_rotations_total{result=\"failed\"} ",
    ];
    let text = eventually("the end of the call in the metrics", || {
        let text = scraped(&mesh, "web-1");
        wanted.iter().all(|line| text.contains(line)).then_some(text)
    });
    println!("{text}");
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{name}"))
    };
    assert!(value("botmesh_bytes_total{direction=\"out\"}") > 0.0);
    assert!(value("botmesh_svid_rotations_total{result=\"ok\"}") > 0.0);
    assert!(value("botmesh_policy_reloads_total{result=\"ok\"}") > 0.0);
    let names: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for name in names {
        let row = format!("| `{name}` |");
        assert!(include_str!("../README.md").contains(&row), "{name}");
    }
    for host in ["web-1", "web-2"] {
        lint(&scraped(&mesh, host));
    }
}

#[test]
fn the_policy_in_force_is_one_series_and_a_new_one_takes_its_place() {
    if !root_or_skip("the policy in the metrics") {
        return;
    }
    let mesh = two_hosts("");
    let info = || -> Vec<String> {
        let text = scraped(&mesh, "web-1");
        let lines = text.lines().filter(|line| line.starts_with("botmesh_policy_info{"));
        lines.map(ToOwned::to_owned).collect()
    };
    let before = info();
    assert_eq!(before.len(), 1, "{before:?}");
    let file = std::fs::read_to_string(mesh.mesh_file()).unwrap();
    mesh.apply(&file.replace("POST /refunds,", "POST /refunds, POST /orders/echo,"));
    let after = eventually("the next policy", || Some(info()).filter(|after| *after != before));
    println!("{before:?}\n{after:?}");
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(after[0].ends_with("\"} 1"), "{after:?}");
}
