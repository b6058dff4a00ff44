//! The `zoo` command: parse, call, print.

mod commands;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// In place of glibc's malloc, for libtorch too. glibc gives an activation back to the system after every operator, so that
/// the next one pays for fresh pages (shvit-s1 takes 1.3 times as long, halonet-26t at batch 8 1.5 times), and its aligned
/// allocations can leave gaps that are never used again: an evaluation then grows by a batch with every batch.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Vision backbones: evaluate, time, check, convert.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "zoo", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Eval(commands::eval::Arguments),
    Merge(commands::merge::Arguments),
    Bench(commands::bench::Arguments),
    Compare(commands::compare::Arguments),
    Energy(commands::energy::Arguments),
    Predict(commands::predict::Arguments),
    List(commands::list::Arguments),
    Info(commands::info::Arguments),
    Profile(commands::profile::Arguments),
    Export(commands::export::Arguments),
    Verify(commands::verify::Arguments),
    Weights(commands::weights::Arguments),
    Draw(commands::draw::Arguments),
}

/// OpenVINO's TBB loads a library that prefers glibc's `free` to ours (RTLD_DEEPBIND), and so frees what our allocator gave out.
/// This variable of TBB's leaves that preference out.
fn share_allocator_with_tbb() {
    // SAFETY: the first thing that main does: there is no other thread that could read the environment.
    unsafe { std::env::set_var("TBB_ENABLE_SANITIZERS", "1") };
}

fn main() -> ExitCode {
    share_allocator_with_tbb();
    let result = match Arguments::parse().command {
        Command::Eval(arguments) => commands::eval::run(&arguments),
        Command::Merge(arguments) => commands::merge::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Compare(arguments) => commands::compare::run(&arguments),
        Command::Energy(arguments) => commands::energy::run(&arguments),
        Command::Predict(arguments) => commands::predict::run(&arguments),
        Command::List(arguments) => commands::list::run(&arguments),
        Command::Info(arguments) => commands::info::run(&arguments),
        Command::Profile(arguments) => commands::profile::run(&arguments),
        Command::Export(arguments) => commands::export::run(&arguments),
        Command::Verify(arguments) => commands::verify::run(&arguments),
        Command::Weights(arguments) => commands::weights::run(&arguments),
        Command::Draw(arguments) => commands::draw::run(&arguments),
    };
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        // Whoever read our output has gone (`zoo list | head`): nothing is wrong.
        Err(e) if commands::output::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("zoo: error: {}", commands::output::explain(&e));
            ExitCode::from(commands::Exit::Failed as u8)
        }
    }
}
