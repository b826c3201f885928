//! Compiles what `config.pbtxt` may say into the descriptors that it is read by; no compiler has to be installed.

use std::{env, error::Error, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/model_config.proto"], ["proto"])?;
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("model_config.bin");
    std::fs::write(descriptors, files.encode_to_vec())?;
    Ok(())
}
