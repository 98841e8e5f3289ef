use std::rc::Rc;
#[derive(Clone)]
pub struct TensorHandle(pub Rc<tch::Tensor>);
impl From<tch::Tensor> for TensorHandle { fn from(t: tch::Tensor) -> Self { Self(Rc::new(t)) } }
impl TensorHandle { pub fn tensor(&self) -> &tch::Tensor { &self.0 } }
pub mod size { pub fn check(_: &rhai::NativeCallContext, _: &[i64], _: tch::Kind) -> crate::host::errors::ScriptResult<()> { Ok(()) } }
