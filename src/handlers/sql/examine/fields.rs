//! The types of a payload's fields: as the database infers them, the same wherever a field is used.

use super::super::diagnostic::{Diagnostic, Place};
use super::super::statement::{Parameter, Statement};
use super::super::typed::Field;
use super::super::wider::{is_text, wider};
use crate::postgres::{self, Examined, Examiner, StatementError};

/// Any JSON value.
const ANY: &str = "json";

/// The fields that were met so far, in order, each with the place that gave it its type.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(Field, Option<Place>)>);

/// A statement that the database takes, and the fields that have another type in it than before.
type Asked = Result<(Examined, Vec<Diagnostic>), StatementError>;

impl Fields {
    /// Asks about a statement whose parameters have these `fixed` types, where they have one. A field
    /// that was met before has the type that it had there; left open it must have the same.
    pub(super) async fn ask(
        &mut self,
        examiner: &mut Examiner,
        statement: &Statement,
        sql: &str,
        parameters: &[Parameter],
        fixed: Vec<Option<String>>,
    ) -> postgres::Result<Asked> {
        let known: Vec<_> = parameters.iter().map(|parameter| self.known(parameter)).collect();
        let open = examiner.examine(sql, &fixed).await?;
        if known.iter().all(Option::is_none) {
            if let Ok(examined) = &open {
                self.remember(statement, parameters, examined);
            }
            return Ok(open.map(|examined| (examined, Vec::new())));
        }
        let declared: Vec<_> = fixed.into_iter().zip(&known).map(|(fixed, known)| fixed.or(known.clone())).collect();
        let bound = examiner.examine(sql, &declared).await?;
        let disagreements = match &open {
            Ok(open) => self.disagreements(statement, parameters, open),
            Err(_) => Vec::new(),
        };
        let examined = match (open, bound) {
            (_, Ok(bound)) => bound,
            // with the types that its use says it is in order: they are what is wrong
            (Ok(open), Err(_)) if !disagreements.is_empty() => open,
            (Err(error), Err(_)) | (Ok(_), Err(error)) => return Ok(Err(error)),
        };
        self.remember(statement, parameters, &examined);
        Ok(Ok((examined, disagreements)))
    }

    /// A field that is used: if no statement does, it is any JSON value.
    pub(super) fn json(&mut self, name: &str) {
        if !self.0.iter().any(|(field, _)| field.name == name) {
            let field = Field { name: name.to_owned(), data_type: ANY.to_owned(), base_type: ANY.to_owned() };
            self.0.push((field, None));
        }
    }

    pub(super) fn into_fields(self) -> Vec<Field> {
        self.0.into_iter().map(|(field, _)| field).collect()
    }

    fn known(&self, parameter: &Parameter) -> Option<String> {
        let Parameter::Field(name) = parameter else { return None };
        let (field, _) = self.0.iter().find(|(field, _)| field.name == *name)?;
        Some(field.data_type.clone())
    }

    fn remember(&mut self, statement: &Statement, parameters: &[Parameter], examined: &Examined) {
        let types = examined.parameter_types.iter().zip(&examined.base_types);
        for (parameter, (data_type, base_type)) in parameters.iter().zip(types) {
            let Parameter::Field(name) = parameter else { continue };
            if self.known(parameter).is_none() {
                let (name, data_type, base_type) = (name.clone(), data_type.clone(), base_type.clone());
                let field = Field { name, data_type, base_type };
                self.0.push((field, place(statement, parameter)));
            }
        }
    }

    fn disagreements(&self, statement: &Statement, parameters: &[Parameter], open: &Examined) -> Vec<Diagnostic> {
        let used = parameters.iter().zip(&open.parameter_types);
        let disagreement = |(parameter, here): (&Parameter, &String)| {
            let Parameter::Field(name) = parameter else { return None };
            let (before, first) = self.0.iter().find(|(field, _)| field.name == *name)?;
            let there = &before.data_type;
            if there == here || [there, here].iter().all(|name| is_text(name)) {
                return None;
            }
            let line = first.as_ref().map(|place| format!(" in line {}", place.line_column().0)).unwrap_or_default();
            Some(Diagnostic {
                place: place(statement, parameter).unwrap_or_else(|| statement.place_of(0)),
                problem: format!("{parameter} is {there}{line} and {here} here"),
                cure: format!("write {parameter}::{} in both", wider(there, here)),
            })
        };
        used.filter_map(disagreement).collect()
    }
}

fn place(statement: &Statement, parameter: &Parameter) -> Option<Place> {
    statement.uses().find(|(used, _)| *used == parameter).map(|(_, place)| place)
}
