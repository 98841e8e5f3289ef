//! `:time`: how long an expression takes, as the median of several runs within about a second.

use std::time::{Duration, Instant};

use rhai::Dynamic;
use tch::{Cuda, Device};

use super::show::grouped;
use super::state::State;
use crate::host::Outcome;

/// Runs go on until so much time has gone by, or so many are done.
const BUDGET: Duration = Duration::from_secs(1);
const MAX_RUNS: usize = 10_000;

/// Times an expression. Its variables, its draws of random numbers and its value are thrown away; what it does to tensors
/// that exist is not.
///
/// # Errors
/// What ended it.
pub fn time(state: &mut State, text: &str) -> Result<String, Outcome> {
    let mut times = state.guarded(|state| {
        let ast = state.compile(text).map_err(|err| state.failed(err))?;
        let session = std::rc::Rc::clone(&state.session);
        let draws = session.draws();
        let mut times = Vec::new();
        let began = Instant::now();
        while times.is_empty() || began.elapsed() < BUDGET && times.len() < MAX_RUNS {
            let mut scope = state.scope.clone();
            session.reset_operations();
            session.set_draws(draws);
            synchronize(session.options.device);
            let start = Instant::now();
            let result = state.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &ast);
            synchronize(session.options.device);
            times.push(start.elapsed());
            if let Err(err) = result {
                session.set_draws(draws);
                return Err(state.failed(err));
            }
        }
        session.set_draws(draws);
        Ok(times)
    })?;
    times.sort_unstable();
    let (runs, median) = (times.len(), times[times.len() / 2]);
    Ok(match runs {
        1 => format!("{} (1 run; its value is thrown away)", duration(median)),
        _ => format!(
            "{} (median of {} runs, fastest {}; values are thrown away)",
            duration(median),
            grouped(runs as i64),
            duration(times[0])
        ),
    })
}

/// Waits for what the device still has to do.
fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// Three digits with the unit that fits.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let shown = [1.234e-6, 0.045_67, 0.5, 12.34].map(|s| duration(Duration::from_secs_f64(s)));
        assert_eq!(shown, ["1.23 µs", "45.7 ms", "500 ms", "12.3 s"]);
    }
}
