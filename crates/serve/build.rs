//! Makes the code of the protocol over gRPC, by a compiler of Protocol Buffers in Rust: none has to be installed.

use std::{env, error::Error, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/inference.proto"], ["proto"])?;
    // What clients are told who ask for the protocol itself.
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("inference.bin");
    std::fs::write(descriptors, files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        // Tensors stay in the buffer that they arrived in.
        .bytes(".")
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}
