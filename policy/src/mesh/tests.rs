use super::*;
use crate::source::Source;

fn mesh() -> Mesh {
    let text = "version: 1\ntrust_domain: a.b\nbots:\n\
         \x20 a: {owner: o, hosts: h, attest: {user: alice, group: g}, serve: {http: 80}}\n\
         \x20 b: {owner: o, hosts: h, attest: {uid: 7}}\n\
         \x20 c: {owner: o, hosts: i, attest: {unit: c.service}}\n\
         \x20 d: {owner: o, hosts: i, attest: {uid: 9, cgroup: /x}}\n";
    let source = Source {
        name: "m".to_owned(),
        text: text.to_owned(),
    };
    crate::load(&[source]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

#[test]
fn a_host_must_know_what_its_own_part_of_the_mesh_asks_for() {
    let mesh = mesh();
    let words = |name| mesh.features_for(&host(name)).into_iter().collect::<Vec<_>>();
    assert_eq!(
        mesh.features().into_iter().collect::<Vec<_>>(),
        ["cgroup", "group", "unit"]
    );
    assert_eq!(words("h"), ["group"]);
    assert_eq!(words("i"), ["cgroup", "unit"]);
    assert_eq!(words("j"), [""; 0]);
}

#[test]
fn what_a_host_cannot_tell_apart_depends_on_its_users_and_its_bots() {
    let mesh = mesh();
    let pairs = |name: &str, alice: Option<u32>| {
        mesh.indistinct(&host(name), |user| alice.filter(|_| user == "alice"))
            .into_iter()
            .map(|pair| format!("{} {} {:?}", pair.one, pair.other, pair.likeness))
            .collect::<Vec<_>>()
    };
    assert_eq!(pairs("h", Some(7)), ["a b SameProcess"]);
    assert_eq!(pairs("h", Some(8)), [""; 0]);
    assert_eq!(pairs("i", Some(9)), [""; 0]);
}
