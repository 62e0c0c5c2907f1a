//! Compiles asynq/v1/*.proto in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["task", "client", "worker", "admin"].map(|f| format!("asynq/v1/{f}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".asynq.v1.Payload.data")
        .bytes(".asynq.v1.ItemBatch.data")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=asynq");
    Ok(())
}
