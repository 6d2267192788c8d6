//! The processes of a box: an image's defaults, overridden by what the user asked for.

use boxlite_proto::{ExecSpec, HealthProbe, WinSize};
use boxlite_types::{
    BoxOptions, BoxRecord, Error, ExecOptions, HealthPlan, ImageConfig, MainProcess, Result, runs_init_system,
};

/// The terminal that a main process gets before a client attaches.
const DEFAULT_TERMINAL: WinSize = WinSize { rows: 24, cols: 80 };

/// The box's main process; `None` for an idle box.
///
/// As with Docker, an entrypoint that is given replaces the image's and drops the image's command.
///
/// # Errors
/// `InvalidInput` when neither the image nor the options name a program.
pub(super) fn main_process(options: &BoxOptions, image: &ImageConfig) -> Result<Option<ExecSpec>> {
    let MainProcess::Image { entrypoint, command } = &options.main else { return Ok(None) };
    let arguments = match (entrypoint, command) {
        (_, Some(command)) => command.clone(),
        (None, None) => image.cmd.clone(),
        (Some(_), None) => Vec::new(),
    };
    let mut argv = entrypoint.clone().unwrap_or_else(|| image.entrypoint.clone());
    argv.extend(arguments);
    if argv.is_empty() {
        return Err(Error::invalid(format!(
            "the image {} names no command to run; give one after the image",
            options.image
        )));
    }
    Ok(Some(ExecSpec {
        argv,
        create_cwd: true,
        tty: options.tty.then_some(DEFAULT_TERMINAL),
        stdin: options.stdin,
        init_system: runs_init_system(options, image),
        ..surroundings(options, image)
    }))
}

/// Sets the variables by which systemd learns that it runs in a container, and which machine it is where the image does
/// not say.
pub(super) fn tell_init_system(main: &mut ExecSpec, box_id: &str) {
    if main.init_system {
        let own =
            ["container=boxlite".to_owned(), format!("container_uuid={}", &box_id[..32.min(box_id.len())])];
        let user_s = std::mem::replace(&mut main.env, own.into());
        overlay_env(&mut main.env, &user_s);
    }
}

/// A further process in the box: it inherits environment, directory and user of the box.
///
/// # Errors
/// `InvalidInput` when no command is given.
pub(crate) fn exec_process(exec: ExecOptions, options: &BoxOptions, image: &ImageConfig) -> Result<ExecSpec> {
    if exec.command.is_empty() {
        return Err(Error::invalid("there is no command to run"));
    }
    let mut spec = surroundings(options, image);
    spec.argv = exec.command;
    overlay_env(&mut spec.env, &exec.env);
    if let Some(workdir) = exec.workdir {
        spec.cwd = workdir;
    }
    if let Some(user) = exec.user {
        spec.user = user;
    }
    spec.tty = exec.tty.map(WinSize::from);
    spec.stdin = exec.stdin;
    Ok(spec)
}

/// Returns the probe that the box's agent runs to check its health: like an exec, with the times of `plan`.
pub(super) fn health_probe(plan: &HealthPlan, record: &BoxRecord) -> HealthProbe {
    let ms = |time: std::time::Duration| time.as_millis() as u64;
    HealthProbe {
        spec: ExecSpec { argv: plan.argv.clone(), ..surroundings(&record.options, &record.image_config) },
        interval_ms: ms(plan.interval),
        timeout_ms: ms(plan.timeout),
        start_period_ms: ms(plan.start_period),
        start_interval_ms: ms(plan.start_interval),
    }
}

fn surroundings(options: &BoxOptions, image: &ImageConfig) -> ExecSpec {
    let mut env = image.env.clone();
    overlay_env(&mut env, &options.env);
    ExecSpec {
        env,
        cwd: options.workdir.clone().unwrap_or_else(|| image.working_dir.clone()),
        user: options.user.clone().unwrap_or_else(|| image.user.clone()),
        ..ExecSpec::default()
    }
}

/// Puts `NAME=value` entries over others; a later entry replaces an earlier one of its name in place.
fn overlay_env(env: &mut Vec<String>, over: &[String]) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in over {
        match env.iter_mut().find(|existing| name(existing) == name(entry)) {
            Some(existing) => existing.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: words("/entry -v"),
            cmd: words("serve"),
            env: words("PATH=/bin A=1"),
            working_dir: "/srv".into(),
            user: "app".into(),
            ..ImageConfig::default()
        }
    }

    fn argv(entrypoint: Option<&str>, command: Option<&str>) -> Result<Vec<String>> {
        let main = MainProcess::Image { entrypoint: entrypoint.map(words), command: command.map(words) };
        let options = BoxOptions { main, ..BoxOptions::default() };
        main_process(&options, &image()).map(|spec| spec.expect("a main process").argv)
    }

    #[test]
    fn entrypoint_and_command_combine_as_docker_users_expect() {
        assert_eq!(argv(None, None).unwrap(), words("/entry -v serve"));
        assert_eq!(argv(None, Some("check")).unwrap(), words("/entry -v check"));
        assert_eq!(argv(Some("sh"), None).unwrap(), words("sh"));
        assert_eq!(argv(Some("sh"), Some("-c ls")).unwrap(), words("sh -c ls"));
        assert_eq!(argv(Some(""), Some("ls")).unwrap(), words("ls"));
        assert_eq!(argv(Some(""), None).unwrap_err().kind(), boxlite_types::ErrorKind::InvalidInput);
    }

    #[test]
    fn an_exec_inherits_the_box_and_overrides_it() {
        let options = BoxOptions { env: words("A=2 B=3"), ..BoxOptions::default() };
        let exec = ExecOptions { command: words("env"), env: words("B=4"), ..ExecOptions::default() };
        let spec = exec_process(exec, &options, &image()).unwrap();
        assert_eq!(spec.env, words("PATH=/bin A=2 B=4"));
        assert_eq!((spec.cwd.as_str(), spec.user.as_str()), ("/srv", "app"));
    }
}
