/* The one script of every page: it loads the modules, then starts Dash, whose callbacks need them. */
import "./address.js";
import "./combobox.js";
import "./grid.js";
import "./form.js";
import "./jobs.js";
import "./maps.js";
import "./selection.js";
import "./drawing.js";
import "./shell.js";
import "./add_images.js";
import "./sql.js";
import "./step.js";

new window.DashRenderer();
