/** What Dash and its components put on the page. */
interface DashClientside {
    no_update: unknown;
    callback_context: {
        triggered: { prop_id: string; value: unknown }[];
        inputs_list: ({ id: any; value?: unknown } | { id: any; value?: unknown }[])[];
    };
    set_props(id: string | object, props: Record<string, unknown>): void;
    convscope?: Record<string, any>;
}

interface Window {
    /** Components that draw the cells of dash-ag-grid. */
    dashAgGridComponentFunctions?: Record<string, (props: any) => unknown>;
    React: { createElement(tag: string, props: object, ...children: unknown[]): unknown };
    dash_clientside: DashClientside;
    DashRenderer: new () => unknown;
}
