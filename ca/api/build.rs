//! Compiles the node API with `protox`, so that no `protoc` has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/node.proto");
    let descriptors = protox::compile(["node.proto"], ["proto"])?;
    // A join token's secret travels in TokenEvidence: `node.rs` writes its Debug by hand.
    tonic_prost_build::configure()
        .skip_debug(["botmesh.node.v1.TokenEvidence"])
        .compile_fds(descriptors)?;
    Ok(())
}
