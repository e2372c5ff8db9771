//! The command line of settings, made from the table.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};

use super::kind::Form;
use super::table::{ALL, Entry, flag};

/// The file of settings.
#[derive(Args, Clone, Debug, Default)]
pub struct FileArgs {
    /// File of settings [default: $ORLOP_CONFIG, else /etc/orlop/orlop.toml if it is there]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// The data folder, for every command that works on one.
#[derive(Args, Clone, Debug, Default)]
pub struct DataArgs {
    /// Data folder [default: the one that the server would use]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,

    /// Where else it may be written.
    #[command(flatten)]
    pub file: FileArgs,
}

/// Settings of the server, as written on the command line.
///
/// Every setting also has a variable and a key in the file; a flag wins over
/// the variable, which wins over the file.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// The file below the flags.
    #[command(flatten)]
    pub file: FileArgs,

    /// A flag for each setting.
    #[command(flatten)]
    pub flags: Flags,

    /// Let everyone do everything, on any address. For labs and benchmarks; a flag only
    #[arg(long)]
    pub insecure_anonymous: bool,
}

/// The flags that were given, by the key of their setting.
#[derive(Clone, Debug, Default)]
pub struct Flags(pub(super) Vec<(&'static str, OsString)>);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        ALL.iter()
            .fold(command, |command, entry| command.arg(argument(*entry)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let mut flags = Vec::new();
        for entry in ALL {
            let Some(values) = matches.get_raw(entry.key()) else {
                continue;
            };
            // Several values of a list are one, with commas.
            let values: Vec<_> = values.map(ToOwned::to_owned).collect();
            flags.push((entry.key(), values.join(std::ffi::OsStr::new(","))));
        }
        Ok(Flags(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(entry: &dyn Entry) -> Arg {
    let help = format!("{} [default: {}]", entry.help(), entry.default_text());
    let argument = Arg::new(entry.key())
        .long(flag(entry.key()))
        .value_name(entry.value())
        .value_hint(entry.hint())
        .help(help);
    let argument = if entry.choices().is_empty() {
        argument.value_parser(clap::value_parser!(OsString))
    } else {
        argument.value_parser(PossibleValuesParser::new(entry.choices()))
    };
    match entry.form() {
        Form::One => argument,
        Form::Many => argument.action(ArgAction::Append),
        Form::Switch => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}
