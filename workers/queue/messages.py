"""Celery for processes that only send: a message is a job number on a queue.

Messages are JSON, are acknowledged after the job, and get no reply: results are in the ledger.
"""

from celery import Celery
from kombu.exceptions import OperationalError

from db.ledger.tables import QUEUES
from db.settings import Settings
from workers.queue.broker import broker_url

TASK = "convscope.run_job"
# An unacknowledged message is redelivered after this time; the worker that gets it finds nothing to do.
_VISIBILITY_SECONDS = 6 * 3600


class BrokerAway(RuntimeError):
    """The broker cannot be reached. Nothing is lost: the ledger has the job, and a sweeper sends it later."""


def celery_app(settings: Settings, *, patient: bool) -> Celery:
    """The Celery application of an installation. With `patient` it waits for an unreachable broker; senders do not."""
    app = Celery("convscope", broker=broker_url(settings), set_as_current=False, fixups=[])
    seconds = {} if patient else {"socket_connect_timeout": 1, "socket_timeout": 2}
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_store_eager_result=False,
        task_create_missing_queues=True,
        task_default_queue=QUEUES[-1],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_SECONDS,
            "queue_order_strategy": "priority",  # the first queue first, regardless of what waits in the others
            **seconds,
        },
    )
    return app


def send(app: Celery, job: int, queue: str) -> None:
    """Notify the workers of `queue` about a job.

    Raises:
        BrokerAway: the message could not be sent.
    """
    try:
        app.send_task(
            TASK,
            args=[job],
            queue=queue,
            retry=True,  # once: a pooled connection may be to a broker that was restarted
            retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
        )
    except (OperationalError, OSError) as error:
        raise BrokerAway("the broker is unreachable") from error
