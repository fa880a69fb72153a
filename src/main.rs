use std::process::ExitCode;

fn main() -> ExitCode {
    tailkeep::cli::run()
}
