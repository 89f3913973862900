//! Compiles the node API with `protox`, so that no `protoc` has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/node.proto");
    let descriptors = protox::compile(["node.proto"], ["proto"])?;
    // A join token's secret travels in TokenEvidence, a bearer token in JwtResponse: `node.rs` writes their Debug by hand.
    tonic_prost_build::configure()
        .skip_debug(["botmesh.node.v1.TokenEvidence", "botmesh.node.v1.JwtResponse"])
        .compile_fds(descriptors)?;
    Ok(())
}
