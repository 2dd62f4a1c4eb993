"AlexNet (2012), reproduced. What is offered here is imported when it is first used"
__version__ = "0.1.0"

TYPE_CHECKING = False # type checkers take it for true; importing typing would take longer than all of this
if TYPE_CHECKING:
    from .data import Pack
    from .model import SPECS, AlexNet, load_weights
    from .results import evaluate

__all__ = ['AlexNet', 'SPECS', 'Pack', 'evaluate', 'load_weights']
_modules = dict(AlexNet='model', SPECS='model', load_weights='model', Pack='data', evaluate='results')

def __getattr__(name):
    if name not in _modules:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    value = getattr(import_module(f'{__name__}.{_modules[name]}'), name)
    globals()[name] = value # found at once the next time
    return value

def __dir__():
    return sorted({*globals(), *__all__})
