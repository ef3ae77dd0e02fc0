//! Asks the database about every declaration, without running anything, and keeps to the rules: all
//! mistakes are found at once.

mod fields;

use std::collections::BTreeSet;

use fields::Fields;

use super::declaration::{Alternative, Declarations, Step, Write};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::rules::{
    Catalog, Declared, Examined, constraints, doubtful, refused, reproducible, required, rows, schemas, serializable,
};
use super::statement::{Parameter, Statement};
use super::typed::{Typed, TypedAlternative, TypedCommand, TypedStatement, TypedStep, TypedWrite};
use crate::postgres::{self, Deferrable, Examiner, Store};

/// What examining the declarations has found.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// The declarations that are in order.
    pub typed: Typed,
    /// What is wrong with the others, in order of files and lines.
    pub problems: Vec<Diagnostic>,
    /// What is in order, and hardly meant.
    pub warnings: Vec<Diagnostic>,
    /// Constraints of written tables that a transaction may put off; they are checked at once.
    pub deferrable: Vec<Deferrable>,
}

impl Examination {
    /// Everything, typed.
    ///
    /// # Errors
    /// What is wrong with any of it.
    pub fn into_typed(self) -> Result<Typed, Diagnostics> {
        match self.problems.is_empty() {
            true => Ok(self.typed),
            false => Err(Diagnostics(self.problems)),
        }
    }
}

/// Examines all declarations; their statements find tables in `tables_schema`. Topics and handlers
/// in Rust are another question: [`entities`](super::rules::entities::check).
///
/// # Errors
/// If the database cannot be reached.
pub async fn examine(store: &Store, tables_schema: &str, declarations: &Declarations) -> postgres::Result<Examination> {
    let mut examiner = store.examiner(tables_schema).await?;
    let mut catalog = Catalog {
        tables_schema: tables_schema.to_owned(),
        schemas: examiner.schemas().await?,
        tables: examiner.tables().await?,
        functions: examiner.functions().await?,
        columns: examiner.columns_of_tables().await?,
        ..Catalog::default()
    };
    let mut candidates = Vec::new();
    let commands = declarations.commands.iter().map(Declared::Command);
    for declared in commands.chain(declarations.writes.iter().map(Declared::Write)) {
        candidates.push(Candidate::examine(declared, &mut examiner, &catalog).await?);
    }
    ask_catalog(&mut examiner, &candidates, &mut catalog).await?;
    examiner.close().await;
    Ok(judged(candidates, &catalog))
}

/// What the rules need to know of the functions and tables that the statements name.
async fn ask_catalog(
    examiner: &mut Examiner,
    candidates: &[Candidate<'_>],
    catalog: &mut Catalog,
) -> postgres::Result<()> {
    let statements = || candidates.iter().flat_map(|candidate| &candidate.statements);
    let mut called: BTreeSet<_> =
        statements().flat_map(|s| reproducible::called(s.statement, &s.expressions)).collect();
    for table in statements().flat_map(|statement| &statement.typed.writes) {
        if !catalog.written.contains_key(table) {
            catalog.written.insert(table.clone(), examiner.written(table).await?);
        }
    }
    let defaults = catalog.written.values().flat_map(|table| &table.defaults);
    called.extend(defaults.flat_map(|column| reproducible::calls(&column.expression)));
    catalog.volatile = examiner.volatile(&called).await?;
    Ok(())
}

/// Applies the rules.
fn judged(mut candidates: Vec<Candidate<'_>>, catalog: &Catalog) -> Examination {
    for candidate in &mut candidates {
        candidate.keep_to_rules(catalog);
    }
    let whole: Vec<_> = candidates.iter().map(|c| (c.declared, c.statements.as_slice())).collect();
    for (nth, problem) in serializable::check(&whole) {
        candidates[nth].problems.push(problem);
    }
    let mut examination = Examination { deferrable: deferrable(catalog), ..Examination::default() };
    for candidate in candidates {
        candidate.settle(&mut examination);
    }
    examination
}

/// Each once: a foreign key belongs to two tables.
fn deferrable(catalog: &Catalog) -> Vec<Deferrable> {
    let all: BTreeSet<_> = catalog.written.values().flat_map(|table| &table.deferrable).cloned().collect();
    all.into_iter().collect()
}

/// A declaration while it is examined.
struct Candidate<'d> {
    declared: Declared<'d>,
    fields: Fields,
    /// The rows that were taken so far, in order.
    rows: Vec<rows::Row<'d>>,
    /// The statements that the database takes, in order. If nothing is wrong, all.
    statements: Vec<Examined<'d>>,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl<'d> Candidate<'d> {
    async fn examine(declared: Declared<'d>, examiner: &mut Examiner, catalog: &Catalog) -> postgres::Result<Self> {
        let mut candidate = Self {
            declared,
            fields: Fields::default(),
            rows: Vec::new(),
            statements: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        match declared {
            Declared::Command(command) => {
                for step in &command.steps {
                    candidate.step(step, examiner, catalog).await?;
                }
                candidate.problems.extend(rows::check_templates(command, &candidate.rows));
                candidate.warnings.extend(doubtful::check(command, &candidate.rows));
                command.fields().into_iter().for_each(|field| candidate.fields.json(field));
            }
            Declared::Write(write) => {
                candidate.statement(&write.statement, None, examiner, catalog).await?;
            }
        }
        Ok(candidate)
    }

    async fn step(&mut self, step: &'d Step, examiner: &mut Examiner, catalog: &Catalog) -> postgres::Result<()> {
        // what the step returns is not there when it did not return what was expected
        let before = self.rows.len();
        self.statement(&step.statement, step.into.as_deref(), examiner, catalog).await?;
        let own = self.rows.split_off(before);
        for alternative in &step.otherwise {
            if let Some(when) = &alternative.when {
                self.statement(when, alternative.into.as_deref(), examiner, catalog).await?;
            }
            if let Some(detail) = &alternative.detail {
                self.problems.extend(rows::check_detail(detail, &self.rows));
            }
            self.rows.truncate(before);
        }
        self.rows.extend(own);
        Ok(())
    }

    async fn statement(
        &mut self,
        statement: &'d Statement,
        into: Option<&'d str>,
        examiner: &mut Examiner,
        catalog: &Catalog,
    ) -> postgres::Result<()> {
        let mistaken = rows::check_statement(statement, &self.rows);
        let (sql, parameters) = statement.numbered();
        let fixed: Vec<_> = parameters.iter().map(|parameter| self.fixed_type(parameter)).collect();
        let asked = self.fields.ask(examiner, statement, &sql, &parameters, fixed).await?;
        // a column that is not there has no type: what comes of that is not told as well
        let consequence = |sqlstate: &str| !mistaken.is_empty() && matches!(sqlstate, "42P18" | "42P08");
        match asked {
            Ok((examined, disagreements)) => {
                self.problems.extend(disagreements);
                if let Some(into) = into {
                    self.problems.extend(rows::check_row(statement, into, &examined.columns));
                    // a row of nothing is told above, and not with each column that is asked of it
                    let columns = Some(examined.columns.clone()).filter(|columns| !columns.is_empty());
                    self.rows.push((into, columns));
                }
                self.statements.push(typed(statement, examined));
            }
            Err(error) => {
                if !consequence(&error.sqlstate) && !self.rests_on_unknown(&parameters, &error.sqlstate) {
                    self.problems.push(refused::refused(statement, &error, catalog));
                }
                self.rows.extend(into.map(|into| (into, None)));
            }
        }
        self.problems.extend(mistaken);
        self.problems.extend(schemas::check(statement, catalog));
        Ok(())
    }

    /// The type of a parameter that is no field; `None`: as it is used.
    fn fixed_type(&self, parameter: &Parameter) -> Option<String> {
        let name = match parameter {
            Parameter::EntityId => "text",
            Parameter::CommandId | Parameter::Uuid(_) => "uuid",
            Parameter::CommandTime => "timestamptz",
            Parameter::Field(_) => return None,
            Parameter::Row { row, column } => {
                let (_, columns) = self.rows.iter().rev().find(|(name, _)| name == row)?;
                let column = columns.as_ref()?.iter().find(|found| found.name == *column)?;
                &column.data_type
            }
        };
        Some(name.to_owned())
    }

    /// A parameter without a type, because the step that returns its row is not in order.
    fn rests_on_unknown(&self, parameters: &[Parameter], sqlstate: &str) -> bool {
        let unknown = |parameter: &Parameter| match parameter {
            Parameter::Row { row, .. } => self.rows.iter().any(|(name, columns)| name == row && columns.is_none()),
            _ => false,
        };
        matches!(sqlstate, "42P18" | "42P08") && parameters.iter().any(unknown)
    }

    fn keep_to_rules(&mut self, catalog: &Catalog) {
        if !self.declared.nondeterministic() {
            let found = self.statements.iter().flat_map(|statement| reproducible::check(statement, catalog));
            self.problems.extend(found.collect::<Vec<_>>());
        }
        let required = self.statements.iter().flat_map(|statement| required::check(statement, catalog));
        self.problems.extend(required.collect::<Vec<_>>());
        // a statement that was refused may be the one that writes the table
        if self.problems.is_empty() {
            self.problems.extend(constraints::check(self.declared, &self.statements, catalog));
        }
    }

    /// Into what was found.
    fn settle(self, examination: &mut Examination) {
        examination.warnings.extend(in_order(self.warnings));
        if !self.problems.is_empty() {
            examination.problems.extend(in_order(self.problems));
            return;
        }
        let mut statements = self.statements.into_iter().map(|examined| examined.typed);
        let fields = self.fields.into_fields();
        match self.declared {
            Declared::Command(command) => {
                let steps = command.steps.iter().filter_map(|step| typed_step(step, &mut statements)).collect();
                examination.typed.commands.push(TypedCommand { declaration: command.clone(), fields, steps });
            }
            Declared::Write(write) => {
                let statement = statements.next();
                let typed = |statement| TypedWrite { declaration: Write::clone(write), fields, statement };
                examination.typed.writes.extend(statement.map(typed));
            }
        }
    }
}

/// The next of `statements`, in the order in which they were examined.
fn typed_step(step: &Step, statements: &mut impl Iterator<Item = TypedStatement>) -> Option<TypedStep> {
    let statement = statements.next()?;
    let mut alternative = |declaration: &Alternative| TypedAlternative {
        when: declaration.when.as_ref().and_then(|_| statements.next()),
        declaration: declaration.clone(),
    };
    let otherwise = step.otherwise.iter().map(&mut alternative).collect();
    Some(TypedStep { declaration: step.clone(), statement, otherwise })
}

fn typed(statement: &Statement, examined: postgres::Examined) -> Examined<'_> {
    let writes: BTreeSet<_> = examined.writes.iter().map(|(table, _)| table.clone()).collect();
    let typed =
        TypedStatement { columns: examined.columns, reads: examined.reads, writes: writes.into_iter().collect() };
    Examined {
        statement,
        typed,
        how: examined.writes,
        expressions: examined.expressions,
        left_null: examined.left_null,
    }
}

/// As they stand in the file.
fn in_order(mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
    problems.sort_by_key(|problem| problem.place.at);
    problems
}
