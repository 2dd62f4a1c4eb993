"Build configuration: every value lives in settings.ini"
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
spdx = {'apache2': 'Apache-2.0', 'mit': 'MIT', 'bsd3': 'BSD-3-Clause'}  # nbdev's names for licenses
maturity = {'3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}
extras = [o.removesuffix('_requirements') for o in cfg if o.endswith('_requirements')]

class BuildWithCards(build_py):
    "The package, and the cards of its pages; a checkout reads them where they are"
    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        for file in sorted(here.glob('nbs/cards/**/*.json*')):
            target = Path(self.build_lib, cfg['lib_path'], 'cards', file.relative_to(here/'nbs/cards'))
            self.mkpath(str(target.parent))
            self.copy_file(str(file), str(target))

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    keywords=cfg['keywords'].split(), url=cfg['git_url'],
    author=cfg['author'], author_email=cfg['author_email'],
    license_expression=spdx[cfg['license']], license_files=['LICENSE'],
    long_description=re.sub(r'\]\((?!\w+:|#)', f"]({cfg['git_url']}/blob/{cfg['branch']}/",
                            (here/'README.md').read_text(encoding='utf-8')),  # links that lead somewhere outside, too
    long_description_content_type='text/markdown',
    classifiers=[f"Development Status :: {cfg['status']} - {maturity[cfg['status']]}",
                 f"Intended Audience :: {cfg['audience']}", f"Natural Language :: {cfg['language']}",
                 'Programming Language :: Python :: 3'],
    project_urls={'Documentation': cfg['doc_host']+cfg['doc_baseurl'], 'Source': cfg['git_url'],
                  'Changes': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"},
    python_requires='>='+cfg['min_python'],
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path']+'.*']),
    package_data={cfg['lib_path']: ['*.txt', '*.csv', 'py.typed']},  # classes; log of 2012; annotations are for all
    cmdclass={'build_py': BuildWithCards},
    install_requires=cfg['requirements'].split(),
    extras_require={o: cfg[f'{o}_requirements'].split() for o in extras},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]})
