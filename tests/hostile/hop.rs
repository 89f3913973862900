//! What one proxy sends another in frames of their own, sent raw by who holds an SVID: a list of its own, and every head of
//! the list of HTTP/1.1 in a frame.

use serde_json::{Value, json};

use super::{Entry, World, filled, filled_in, list, suffix, try_by};
use crate::support::{Host, Mesh, http_get, root_or_skip};

/// Kinds of frames: a head, a head without a body, the last piece of a body.
const HEAD: u8 = 1;
const HEAD_LAST: u8 = 2;
const DATA_LAST: u8 = 4;

/// The first stream.
const STREAM: u32 = 256;

fn frames(entry: &Entry, label: &str) -> Value {
    let frames = filled_in(entry.hop.as_ref().unwrap(), label, "https");
    json!({"hop": frames, "ends": entry.must == "ended"})
}

/// The entry's head in a frame, and what follows it as a body.
fn http1(entry: &Entry, label: &str) -> Value {
    let text = entry.bytes.as_ref().unwrap();
    let mut bytes = filled(text, label, "https");
    if !text.contains("{suffix}") {
        bytes.push_str(&suffix(label));
    }
    let end = bytes.find("\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let (head, body) = bytes.split_at(end.min(30_000));
    let mut frames = vec![json!({"frame": [if body.is_empty() { HEAD_LAST } else { HEAD }, STREAM, head]})];
    if !body.is_empty() {
        frames.push(json!({"frame": [DATA_LAST, STREAM, body.chars().take(60_000).collect::<String>()]}));
    }
    json!({"hop": frames})
}

/// How many connections a host ended for what the other proxy said, by why.
fn broken(host: &Host, why: &str) -> u64 {
    let (_, text) = http_get(host.ports.metrics, "/metrics").expect("metrics");
    let wanted = format!("botmesh_hops_broken_total{{reason=\"{why}\"}} ");
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(&wanted)?.trim().parse().ok());
    found.unwrap_or(0)
}

fn callee(mesh: &Mesh) -> &Host {
    mesh.host("web-2")
}

#[test]
fn no_frame_of_the_hop_that_no_proxy_sends_reaches_a_callee_and_each_is_counted() {
    if !root_or_skip("hostile frames of the hop") {
        return;
    }
    let entries = list(include_str!("hop.jsonl"));
    let mut world = World::start("botmesh-hop/1");
    let ends = entries.iter().filter(|entry| entry.must == "ended").count();
    let counted = try_by(
        &entries,
        &mut world,
        &["mesh"],
        |entry, label, _| frames(entry, label),
        |mesh| ["protocol", "flood"].map(|why| broken(callee(mesh), why)),
    );
    assert_eq!(counted.iter().sum::<u64>(), ends as u64, "{counted:?}");
    assert_eq!(counted[1], 1, "one of them was a flood");
}

#[test]
fn a_head_in_a_frame_is_read_as_strictly_as_one_that_comes_by_http1() {
    if !root_or_skip("hostile heads on the hop") {
        return;
    }
    let mut entries = list(include_str!("http1.jsonl"));
    // A proxy adds fields to those of its bot; a body of length 0 is whole before what follows it is seen to be too much.
    entries.retain(|entry| !["fields-too-many", "length-too-small"].contains(&entry.id.as_str()));
    for entry in &mut entries {
        // What chunks or the end of a connection would delimit is refused here.
        if entry.must.is_object() || entry.must == "cut" {
            entry.must = "either".into();
        }
    }
    try_by(
        &entries,
        &mut World::start("botmesh-hop/1"),
        &["mesh"],
        |entry, label, _| http1(entry, label),
        |_| (),
    );
}
