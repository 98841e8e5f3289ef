//! What an optimizer remembers of each parameter: tensors by name, made at the first gradient, saved and taken over strictly.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::groups::Part;
use crate::nn::Registry;
use crate::train::checkpoint::State;
use crate::train::{TrainError, TrainResult};

pub(super) struct Memory {
    /// Names of tensors of the parameter's shape.
    like: &'static [&'static str],
    /// Names of float scalars that follow them.
    counters: &'static [&'static str],
    tensors: RefCell<HashMap<String, Vec<Tensor>>>,
}

/// A state that was read and fits.
pub(super) struct Found {
    tensors: HashMap<String, Vec<Tensor>>,
    /// How many tensors of the state it is.
    pub count: usize,
}

impl Memory {
    pub fn new(like: &'static [&'static str], counters: &'static [&'static str]) -> Self {
        Self { like, counters, tensors: RefCell::default() }
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.like.iter().chain(self.counters).copied()
    }

    /// The tensors of a parameter, zeros if it has none yet.
    pub fn of(&self, part: &Part) -> TrainResult<Vec<Tensor>> {
        self.of_or(part, || {
            let scalar = || Tensor::f_zeros([] as [i64; 0], (Kind::Float, part.tensor.device()));
            let like = self.like.iter().map(|_| part.tensor.f_zeros_like());
            Ok(like.chain(self.counters.iter().map(|_| scalar())).collect::<Result<_, _>>()?)
        })
    }

    /// The same with first values of one's own.
    pub fn of_or(&self, part: &Part, new: impl FnOnce() -> TrainResult<Vec<Tensor>>) -> TrainResult<Vec<Tensor>> {
        let mut tensors = self.tensors.borrow_mut();
        if !tensors.contains_key(&part.name) {
            tensors.insert(part.name.clone(), new()?);
        }
        Ok(tensors.get(&part.name).into_iter().flatten().map(Tensor::shallow_clone).collect())
    }

    /// The tensors of a parameter, if it has any.
    pub fn get(&self, name: &str) -> Option<Vec<Tensor>> {
        self.tensors.borrow().get(name).map(|all| all.iter().map(Tensor::shallow_clone).collect())
    }

    pub fn forget(&self) {
        self.tensors.borrow_mut().clear();
    }

    /// What a checkpoint holds: `<what>.<parameter>`.
    pub fn state(&self) -> State {
        let mut state = State::new();
        for (name, tensors) in self.tensors.borrow().iter() {
            let named = self.names().zip(tensors);
            state.extend(named.map(|(what, tensor)| (format!("{what}.{name}"), tensor.shallow_clone())));
        }
        state
    }

    /// What `state` holds for those parameters of `model` that `wanted` names.
    ///
    /// Errors: a shape that is not the parameter's.
    pub fn find(
        &self,
        model: &Registry,
        state: &[(String, Tensor)],
        wanted: impl Fn(&str) -> bool,
    ) -> TrainResult<Found> {
        let by_name: HashMap<&str, &Tensor> = state.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut found = Found { tensors: HashMap::new(), count: 0 };
        model.each_parameter(|parameter| -> TrainResult<()> {
            let name = &parameter.name;
            let parts: Vec<&&Tensor> =
                self.names().filter_map(|what| by_name.get(format!("{what}.{name}").as_str())).collect();
            if parts.len() != self.names().count() || !wanted(name) {
                return Ok(()); // What belongs to no parameter is counted, and refused, at the end.
            }
            let mut own = Vec::with_capacity(parts.len());
            for (i, tensor) in parts.into_iter().enumerate() {
                let shape = if i < self.like.len() { parameter.tensor.size() } else { Vec::new() };
                if tensor.size() != shape {
                    let got = tensor.size();
                    let message = format!("optimizer state of {name}: expected shape {shape:?}, found {got:?}");
                    return Err(TrainError::Config(message));
                }
                own.push(tensor.f_to_device(model.device())?);
            }
            found.count += own.len();
            found.tensors.insert(name.clone(), own);
            Ok(())
        })?;
        Ok(found)
    }

    /// Puts what was found in place of what is remembered.
    pub fn put(&self, found: Found) {
        *self.tensors.borrow_mut() = found.tensors;
    }
}

impl Found {
    /// One of the tensors of a parameter, by its place.
    pub fn get(&self, name: &str, place: usize) -> Option<&Tensor> {
        self.tensors.get(name)?.get(place)
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

/// Errors: [`TrainError::Config`] where `state` has more tensors than the `taken` that found their parameter.
pub(super) fn refuse_strangers(state: &[(String, Tensor)], taken: usize) -> TrainResult<()> {
    match state.len().saturating_sub(taken) {
        0 => Ok(()),
        rest => Err(TrainError::Config(format!(
            "optimizer state: {rest} tensors do not belong to this model and optimizer"
        ))),
    }
}
