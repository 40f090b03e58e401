"""Comparison of the classifiers, the audit of leakage, and unseen predictions."""

import dagster as dg

from csfd_core.classification.ensemble import open_ensemble, read_best, write_best
from csfd_core.classification.examples import choose_examples
from csfd_core.classification.manifest import read_manifest
from csfd_core.classification.models import ClassifierStore
from csfd_core.classification.registry import CLASSIFIERS
from csfd_core.comparison.predictions import unseen_studies
from csfd_core.comparison.report import FOLDER, write_report
from csfd_core.comparison.summary import compare
from csfd_core.errors import StoreError
from csfd_core.inference.predict import predict_stored
from csfd_core.leakage.audit import audit_progress, is_current, run_audit
from csfd_core.leakage.config import PROFILES as AUDIT_PROFILES
from csfd_core.leakage.report import report_location
from csfd_core.leakage.report import write_report as write_audit
from csfd_core.reports.page import INDEX, Written
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL
from csfd_dagster.assets.classification import (
    CLASSIFIER_ASSETS,
    GROUP,
    training_manifest,
)
from csfd_dagster.assets.ingest import OWNERS, slice_store
from csfd_dagster.classification_resource import ClassificationResource
from csfd_dagster.mlflow_resource import MlflowResource
from csfd_dagster.presentation import picture, table_of
from csfd_dagster.resources import StoreResource
