//! The examples in `deploy/` are what people copy: each is read by the code that would read it, and decides as it says.

use std::path::{Path, PathBuf};

use policy::Callee;
use spiffe::time::Timestamp;

use crate::cli::{ca, proxy};
use crate::sources;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

#[test]
fn every_mesh_file_passes_check_and_test_without_a_warning() {
    for name in ["mesh.yaml", "mesh.d"] {
        let sources = sources::read(&[deploy(name)]).unwrap();
        let mesh = policy::load(&sources).unwrap_or_else(|errors| panic!("{name}: {}", errors.render(false)));
        assert!(mesh.warnings().is_empty(), "{name}: {}", mesh.warnings().render(false));
        let report = mesh.run_tests(Timestamp::from_rfc3339("2026-12-01T00:00:00Z").unwrap());
        assert!(report.total() > 0, "{name} has tests");
        assert_eq!(report.failed(), 0, "{name}: {}", report.render(false));
    }
}

#[test]
fn the_configurations_are_read_by_the_servers_they_are_for() {
    let ca = ca::settings(&deploy("ca.yaml")).unwrap();
    let proxy = proxy::settings(&deploy("proxy.yaml")).unwrap();
    assert_eq!(ca.trust_domain, proxy.trust_domain);
    let mesh = policy::load(&sources::read(&[deploy("mesh.yaml")]).unwrap()).unwrap();
    assert_eq!(*mesh.trust_domain(), proxy.trust_domain);
    for listener in &proxy.listeners {
        let is_there = match &listener.to {
            Callee::Bot(bot) => mesh.bots().contains_key(bot),
            Callee::Outside(outside) => mesh.outside_names().contains(&outside.to_string()),
        };
        assert!(is_there, "{} is in mesh.yaml", listener.to);
    }
}

#[test]
fn no_example_is_left_out() {
    let mut names: Vec<String> = std::fs::read_dir(deploy(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") || name == "mesh.d")
        .collect();
    names.sort();
    assert_eq!(names, ["ca.yaml", "mesh.d", "mesh.yaml", "proxy.yaml"]);
}

mod units;
