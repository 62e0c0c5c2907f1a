//! Compiles asynq/v1/*.proto in Rust, so that no `protoc` is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["task", "client", "worker", "admin"].map(|f| format!("asynq/v1/{f}.proto"));
    let mut compiler = protox::Compiler::new(["."])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(files)?;
    // What reflection shows, with all comments.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        // Read without a copy: a slice of the message.
        .bytes(".asynq.v1")
        .compile_fds(compiler.file_descriptor_set())?;
    println!("cargo::rerun-if-changed=asynq");
    Ok(())
}
