"""No module imports itself by way of others, imports for type checking included. The linter keeps the floors."""

import grimp


def test_no_import_goes_round_in_a_circle():
    graph = grimp.build_graph("runtimed", exclude_type_checking_imports=False)
    below = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while free := [module for module, imported in below.items() if not imported & below.keys()]:
        for module in free:
            del below[module]
    # What is left imports a circle, or is one.
    while top := below.keys() - {one for imported in below.values() for one in imported}:
        for module in top:
            del below[module]
    assert sorted(below) == []
