// What a notebook with the kernel "Shared session (runtimed)" gets in JupyterLab: its running cells go on where the
// page was opened again, and the status bar says which session it is in, with how many peers, and what runs.

import { CodeCell } from '@jupyterlab/cells';
import { URLExt } from '@jupyterlab/coreutils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ServerConnection } from '@jupyterlab/services';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Widget } from '@lumino/widgets';

/** Milliseconds between two looks at the session of the notebook in front. */
const INTERVAL = 3000;

/** Return the id of the session that a notebook's kernel stands for; undefined for any other kernel. */
async function sessionOf(panel) {
  const kernel = panel.sessionContext.session?.kernel;
  return kernel ? (await kernel.info).runtimed?.session_id : undefined;
}

/** Ask the server about a session; null where it has no answer: a server without the extension, or no daemon. */
async function look(settings, sessionId) {
  const url = URLExt.join(settings.baseUrl, 'runtimed', 'sessions', encodeURIComponent(sessionId));
  try {
    const response = await ServerConnection.makeRequest(url, {}, settings);
    return response.ok ? await response.json() : null;
  } catch (error) {
    if (error instanceof ServerConnection.NetworkError) {
      return null;
    }
    throw error;
  }
}

/** Let the cells of a notebook go on that run, or wait, in its session, and that this page did not start. */
async function resume(panel, settings) {
  await panel.context.ready;
  await panel.revealed;
  const sessionId = await sessionOf(panel);
  if (sessionId === undefined) {
    return;
  }
  const state = await look(settings, sessionId);
  for (const { cell_id: cellId, execution_id: executionId } of state?.queue ?? []) {
    const cell = panel.content.widgets.find(widget => widget.model.id === cellId);
    const isFollowed = cell?.model.executionState === 'running';
    if (cell instanceof CodeCell && !isFollowed) {
      // The kernel answers with the outputs of this execution from its beginning, and starts nothing.
      CodeCell.execute(cell, panel.sessionContext, { runtimed: { attach: executionId } }).catch(error => {
        console.warn(`runtimed: the cell ${cellId} does not go on here:`, error);
      });
    }
  }
}

/** Return what the status bar says of a session; of one that is named after a file, the file's name stands for it. */
function sentence(sessionId, state) {
  const name = sessionId.startsWith('/') ? sessionId.slice(sessionId.lastIndexOf('/') + 1) : sessionId;
  if (state === null) {
    return `session ${name}`;
  }
  const runs = state.queue.length;
  const peers = `${state.peers} ${state.peers === 1 ? 'peer' : 'peers'}`;
  const work = runs === 0 ? state.kernel_status : `${runs} ${runs === 1 ? 'cell runs' : 'cells run or wait'}`;
  return `session ${name} · ${peers} · ${work}`;
}

/** The part of the status bar that is about the notebook in front. */
class SessionStatus extends Widget {
  constructor(tracker, settings) {
    super({ node: document.createElement('span') });
    this.addClass('jp-StatusBar-TextItem');
    this.addClass('runtimed-status');
    this._tracker = tracker;
    this._settings = settings;
    this._timer = window.setInterval(() => this.refresh(), INTERVAL);
    tracker.currentChanged.connect(this.refresh, this);
  }

  dispose() {
    window.clearInterval(this._timer);
    this._tracker.currentChanged.disconnect(this.refresh, this);
    super.dispose();
  }

  async refresh() {
    const panel = this._tracker.currentWidget;
    if (document.hidden || panel === null) {
      return;
    }
    const sessionId = await sessionOf(panel);
    const text = sessionId === undefined ? '' : sentence(sessionId, await look(this._settings, sessionId));
    if (!this.isDisposed && this._tracker.currentWidget === panel && this.node.textContent !== text) {
      this.node.textContent = text;
      this.node.title = sessionId === undefined ? '' : `The session of runtimed that this notebook is in: ${sessionId}`;
    }
  }
}

const plugin = {
  id: 'runtimed:plugin',
  description: 'Lets running cells of a shared session go on after a reload, and shows the session in the status bar',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [IStatusBar],
  activate: (app, tracker, statusBar) => {
    const settings = app.serviceManager.serverSettings;
    tracker.widgetAdded.connect((_, panel) => {
      panel.sessionContext.kernelChanged.connect(() => resume(panel, settings));
      void panel.sessionContext.ready.then(() => resume(panel, settings));
    });
    if (statusBar !== null) {
      const item = new SessionStatus(tracker, settings);
      statusBar.registerStatusItem('runtimed:session', { item, align: 'left', rank: 10 });
    }
  }
};

export default plugin;
